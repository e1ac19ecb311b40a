"""Progress bars on standard error, so that standard output stays for results."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def progress_bar() -> Progress:
    """A progress display for work of known length."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def track(items: Iterable[T], description: str, *, total: int, quiet: bool = False) -> Iterator[T]:
    """Pass items on and show how many have come."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total, visible=not quiet)
        for item in items:
            yield item
            progress.advance(task)
