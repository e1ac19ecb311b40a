"""The pictures of a compression report, as PNG (extra `plots`)."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bidtrie.figure import INK, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BITS, _LOSS = "#3d6b99", "#d1495b"
_COLOURS = ("#3d6b99", "#d1495b", "#2a9d6f", "#e07a3f", "#6d597a", "#f2c14e")


def layers_plot(artefact: Mapping[str, Any]) -> bytes:
    """Bits a weight of each layer as bars, and what it is predicted to lose (or its weights' error) as a line."""

    from matplotlib.ticker import MaxNLocator

    def draw(figure: "Figure") -> Sequence["Axes"]:
        layers = artefact["layers"]
        axes = figure.subplots()
        places = [each["layer"] for each in layers]
        axes.bar(places, [each["bits_per_weight"] for each in layers], color=_BITS, width=0.8)
        axes.set_xlabel("layer", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("bits a weight", color=_BITS)
        losses = axes.twinx()
        key = "predicted_loss" if layers and layers[0]["predicted_loss"] is not None else "relative_error"
        losses.plot(places, [each[key] for each in layers], color=_LOSS, marker="o", markersize=3)
        # Losses differ by powers of ten, errors hardly.
        losses.set_yscale("log" if key == "predicted_loss" else "linear")
        label = {"predicted_loss": "predicted loss, nats a token", "relative_error": "mean relative error"}[
            key
        ]
        losses.set_ylabel(label, color=_LOSS)
        losses.spines[["top"]].set_visible(False)
        return [axes]

    return _png(9, 3.2, draw)


def check_plot(samples: Sequence[Mapping[str, Any]]) -> bytes:
    """Measured against predicted losses of the sample, by format."""

    def draw(figure: "Figure") -> Sequence["Axes"]:
        axes = figure.subplots()
        shown = [each for each in samples if each["predicted"] > 0 and each["measured"] > 0]
        for colour, format in zip(_COLOURS, dict.fromkeys(each["format"] for each in shown), strict=False):
            points = [each for each in shown if each["format"] == format]
            axes.scatter(
                [each["predicted"] for each in points],
                [each["measured"] for each in points],
                color=colour,
                s=22,
                label=format,
            )
        values = [each[key] for each in shown for key in ("predicted", "measured")]
        if values:
            ends = [min(values) / 1.5, max(values) * 1.5]
            axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--", label="as predicted")
            axes.legend(frameon=False, fontsize=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("predicted, nats a token", color=INK)
        axes.set_ylabel("measured, nats a token", color=INK)
        return [axes]

    return _png(5, 4, draw)


def front_plot(artefacts: Sequence[Mapping[str, Any]]) -> bytes:
    """Perplexity over decoding time and over bits a weight, and which artefacts no other one beats in both."""

    def draw(figure: "Figure") -> Sequence["Axes"]:
        every = figure.subplots(1, 2, sharey=True)
        for axes, key, label in zip(
            every,
            ("decode_ms", "layers_bits_per_weight"),
            ("ms a token, decoding", "bits a weight, layers' linears"),
            strict=True,
        ):
            points = sorted((each[key], each["perplexity"], each["name"]) for each in artefacts)
            front = [
                point for i, point in enumerate(points) if all(point[1] < other[1] for other in points[:i])
            ]
            axes.plot([p[0] for p in front], [p[1] for p in front], color=_BITS, linewidth=1)
            axes.scatter([p[0] for p in points], [p[1] for p in points], color=_BITS, s=24)
            for x, y, name in points:
                axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=INK)
            axes.set_xlabel(label, color=INK)
            axes.margins(x=0.2, y=0.12)
        every[0].set_ylabel("perplexity", color=INK)
        return list(every)

    return _png(10, 3.8, draw)


def _png(width: float, height: float, draw: Callable[["Figure"], Sequence["Axes"]]) -> bytes:
    figure = new_figure(width, height)
    style_axes(draw(figure))
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
