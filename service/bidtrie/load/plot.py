"""A picture of a run: rates by outcome and latencies, over time."""

from pathlib import Path
from typing import TYPE_CHECKING

from bidtrie.figure import INK, check_plot, new_figure, style_axes, write_figure
from bidtrie.load.report import LoadReport
from bidtrie.load.statistics import Second

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE_PAD = 24
# Outcomes from the bottom up, told apart by colour-blind people too.
_OUTCOMES = (
    ("in time", "#2a9d6f"),
    ("OK, but late", "#f2c14e"),
    ("rejected", "#e07a3f"),
    ("deadline exceeded", "#b23a48"),
    ("other errors", "#6d597a"),
    ("dropped by the generator", "#adb5bd"),
)


def write_plot(report: LoadReport, file: Path) -> None:
    """Draw the run as PNG or SVG, by the file's suffix. Raises InvalidInput where it cannot be written."""
    check_plot(file)
    figure = new_figure(10, 7)
    rates, latencies = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
    series = report.summary.series
    _draw_rates(rates, report)
    _draw_latencies(latencies, series, report.summary.budget_ms)
    style_axes((rates, latencies))
    latencies.set_xlabel("seconds since the start", color=INK)
    latencies.set_xlim(0, max(report.window_s, 1e-3))
    write_figure(figure, file)


def _edges(series: tuple[Second, ...]) -> list[float]:
    """Starts of the seconds, and the end of the last."""
    return [float(second.second) for second in series] + [
        second.second + second.width_s for second in series[-1:]
    ]


def _draw_rates(axes: "Axes", report: LoadReport) -> None:
    summary = report.summary
    series = summary.series
    edges = _edges(series)
    bottom = [0.0] * len(series)
    for name, color in _OUTCOMES:
        rates = [_count(second, name) / second.width_s for second in series]
        if not any(rates):
            continue
        top = [low + rate for low, rate in zip(bottom, rates, strict=True)]
        axes.stairs(top, edges, baseline=bottom, fill=True, color=color, label=name)
        bottom = top
    if series:
        offered = [second.offered / second.width_s for second in series]
        axes.stairs(offered, edges, baseline=None, color=INK, linewidth=1.4, label="offered")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("requests a second", color=INK)
    axes.set_title(
        f"{report.options.call} on {report.options.target}: {summary.offered_rps:,.1f} requests a second offered, "
        f"{summary.goodput_rps:,.1f} answered within {summary.budget_ms:g} ms",
        loc="left",
        color=INK,
        fontsize=11,
        pad=_TITLE_PAD,
    )
    _legend(axes)


def _count(second: Second, outcome: str) -> int:
    return {
        "in time": second.ok - second.late,
        "OK, but late": second.late,
        "rejected": second.rejected,
        "deadline exceeded": second.expired,
        "other errors": second.failed,
        "dropped by the generator": second.dropped,
    }[outcome]


def _draw_latencies(axes: "Axes", series: tuple[Second, ...], budget_ms: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    answered = [second for second in series if second.p50_ms is not None and second.p99_ms is not None]
    middles = [second.second + second.width_s / 2 for second in answered]
    mark = "o" if len(answered) <= 60 else ""
    for name, color, values in (
        ("p99", "#b23a48", [second.p99_ms or 0.0 for second in answered]),
        ("p50", "#2a6f9d", [second.p50_ms or 0.0 for second in answered]),
    ):
        axes.plot(middles, values, color=color, linewidth=1.8, marker=mark, markersize=3.5, label=name)
    axes.axhline(budget_ms, color=INK, linewidth=1, linestyle=(0, (5, 3)), label=f"budget, {budget_ms:g} ms")
    axes.set_yscale("log")
    # Plain numbers, and enough of them, instead of powers of ten.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("milliseconds (log scale)", color=INK)
    axes.set_title(
        "Latency of OK answers, from the intended time of sending",
        loc="left",
        color=INK,
        fontsize=11,
        pad=_TITLE_PAD,
    )
    _legend(axes)


def _legend(axes: "Axes") -> None:
    """Between title and panel, where it hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            ncols=8,
            fontsize=8.5,
            loc="lower left",
            bbox_to_anchor=(-0.005, 0.99),
            frameon=False,
            labelcolor=INK,
            columnspacing=1.4,
            handlelength=1.4,
        )
