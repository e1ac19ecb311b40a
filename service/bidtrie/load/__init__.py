"""An open-loop load generator for a running server: `run(LoadOptions(...)) -> LoadReport`.

Requests leave at their intended times whether or not earlier ones were answered, and latencies count from those times.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bidtrie.load.options import Arrivals, Call, LoadOptions, Priority, ScheduleName

if TYPE_CHECKING:
    from bidtrie.load.report import LoadReport
    from bidtrie.load.runner import Progress, run, run_async

__all__ = [
    "Arrivals",
    "Call",
    "LoadOptions",
    "LoadReport",
    "Priority",
    "Progress",
    "ScheduleName",
    "run",
    "run_async",
]

# The command line needs the options alone, and starts without gRPC and numpy.
_LATER = {"LoadReport": "report", "Progress": "runner", "run": "runner", "run_async": "runner"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
