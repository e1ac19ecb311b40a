"""What every picture of a command shares: its file, its look, and how it is written (extra `plots`)."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bidtrie.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
INK, GRID = "#3b4252", "#d8dee9"


def check_plot(file: Path) -> None:
    """Raise InvalidInput where no plot could be written to this file, before time is spent on a run."""
    if file.suffix.lower() not in FORMATS:
        raise InvalidInput.of("--plot", f"{file.name}, expected a name that ends in {' or '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise InvalidInput.of("--plot", 'needs matplotlib: pip install "bidtrie[plots]"')


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    # Not pyplot: it keeps figures alive and may want a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(every: Iterable["Axes"]) -> None:
    """A light grid behind the data, and no frame above and to the right."""
    for axes in every:
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)


def write_figure(figure: "Figure", file: Path) -> None:
    """Write it as PNG or SVG, by the file's suffix, whole or not at all. Raises InvalidInput where it cannot be."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        figure.savefig(temporary, format=file.suffix.lower().removeprefix("."))
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput.of("--plot", f"{file} cannot be written: {error.strerror}") from error
