"""A picture of an evaluation: accuracy with its intervals, latency, and reliability diagrams."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bidtrie.evaluation.calibration import Calibration
from bidtrie.evaluation.reliability import Bool, Float64, calibration_error, equal_width
from bidtrie.evaluation.significance import wilson
from bidtrie.evaluation.targeting import Tally
from bidtrie.figure import GRID, INK, check_plot, new_figure, style_axes, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by colour-blind people too.
_TIER1, _PATH, _SCALED, _UNSCALED = "#2a6f9d", "#e07a3f", "#2a9d6f", "#adb5bd"
_OFFSET = 0.14


def write_plot(
    tallies: Mapping[str, Tally],
    calibration: Mapping[str, Mapping[str, Calibration | None]],
    file: Path,
    *,
    paths: bool,
) -> None:
    """Draw an evaluation as PNG or SVG, by the file's suffix. Raises InvalidInput where it cannot be written."""
    check_plot(file)
    diagrams = [
        (f"{name}, {'tier 1' if what == 'tier1' else what}", found)
        for name, kinds in calibration.items()
        for what, found in kinds.items()
        if found is not None
    ]
    figure = new_figure(12, 8 if diagrams else 4.2)
    rows = figure.subfigures(2 if diagrams else 1, 1, squeeze=False)[:, 0]
    accuracy, latency = rows[0].subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_accuracy(accuracy, tallies, paths=paths)
    _draw_latency(latency, tallies)
    if diagrams:
        below = rows[1].subplots(1, len(diagrams), sharey=True, squeeze=False)[0]
        for axes, (title, found) in zip(below, diagrams, strict=True):
            _draw_reliability(axes, title, found)
        below[0].set_ylabel("share that was right", color=INK)
        handles, labels = below[0].get_legend_handles_labels()
        rows[1].legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=9
        )
    style_axes(figure.axes)
    write_figure(figure, file)


def _draw_accuracy(axes: "Axes", tallies: Mapping[str, Tally], *, paths: bool) -> None:
    n = len(next(iter(tallies.values())).latency_ms)
    kinds = [("tier 1", "tier1_top1", _TIER1, -_OFFSET)]
    if paths:
        kinds.append(("whole path", "path_top1", _PATH, _OFFSET))
    for label, share, color, offset in kinds:
        hits = np.array([sum(tally.hits(share)) for tally in tallies.values()])
        shares = hits / n
        bounds = np.array([wilson(int(each), n) for each in hits])
        reach = np.abs(bounds.T - shares)
        places = np.arange(len(hits)) + offset
        axes.errorbar(shares, places, xerr=reach, fmt="o", color=color, capsize=3, label=label)
        for x, y in zip(shares, places, strict=True):
            # Outside of the pair.
            _annotate(axes, f"{x:.1%}", x, y, color, above=offset < 0)
    axes.set_yticks(range(len(tallies)), labels=list(tallies))
    axes.set_ylim(len(tallies) - 0.5, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_xlabel("first answer right, with 95% intervals", color=INK)
    axes.set_title(f"Accuracy, {n:,} pages", loc="left", color=INK, fontsize=11)
    _legend_above(axes)


def _annotate(axes: "Axes", text: str, x: float, y: float, color: str, *, above: bool) -> None:
    axes.annotate(
        text,
        (x, y),
        (0, 6 if above else -6),
        textcoords="offset points",
        color=color,
        fontsize=8,
        ha="center",
        va="bottom" if above else "top",
    )


def _legend_above(axes: "Axes") -> None:
    """Beside the title, where no data is."""
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )


def _draw_latency(axes: "Axes", tallies: Mapping[str, Tally]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for place, tally in enumerate(tallies.values()):
        p50, p95 = np.percentile(tally.latency_ms, (50, 95))
        axes.plot([p50, p95], [place, place], color=GRID, linewidth=3, zorder=1, solid_capstyle="round")
        axes.plot([p50], [place], "o", color=_TIER1, label=None if place else "p50")
        axes.plot([p95], [place], "|", color=_PATH, markersize=12, label=None if place else "p95")
        _annotate(axes, f"{p50:.1f}", p50, place, INK, above=True)
    axes.set_xscale("log")
    # Plain numbers instead of powers of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("milliseconds (log scale), one request at a time", color=INK)
    axes.set_title("Latency of 50 segments", loc="left", color=INK, fontsize=11)
    _legend_above(axes)


def _draw_reliability(axes: "Axes", title: str, found: Calibration) -> None:
    """Bins as discs with an area by their size: the share that was right over the mean probability."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (5, 3)))
    before = _draw_bins(axes, "as scored", found.unscaled, found.right, _UNSCALED)
    after = _draw_bins(axes, "scaled with the other half's temperature", found.scaled, found.right, _SCALED)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_aspect("equal")
    axes.set_xlabel("probability", color=INK)
    told = f"{title}\nECE {before:.3f}, scaled {after:.3f}; temperature {found.temperature:.2f}"
    axes.set_title(told, loc="left", color=INK, fontsize=9)


def _draw_bins(axes: "Axes", name: str, probabilities: Float64, right: Bool, color: str) -> float:
    """Returns the calibration error."""
    bins = equal_width(probabilities, right)
    x, y = [each.probability for each in bins], [each.right for each in bins]
    axes.plot(x, y, color=color, linewidth=1, alpha=0.5)
    axes.scatter(
        x,
        y,
        s=[10 + 300 * each.n / len(right) for each in bins],
        color=color,
        alpha=0.85,
        linewidths=0,
        label="_nolegend_",
    )
    axes.plot([], [], "o-", color=color, markersize=5, label=name)
    return calibration_error(bins)
