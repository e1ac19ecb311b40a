"""The errors that users see. Each names what is wrong and what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_LINES_SHOWN = 20


class BidtrieError(Exception):
    """Base of every error that bidtrie raises on purpose."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with an input: which field, and what was expected."""

    field: str
    description: str


class InvalidInput(BidtrieError):
    """A request, setting or flag is wrong; answered as INVALID_ARGUMENT with every violation."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidInput":
        return cls([Violation(field, description)])

    @classmethod
    def of_lines(cls, file: str, problems: Sequence[Violation]) -> "InvalidInput":
        """What is wrong with the lines of a file: the first 20, and how many more there are."""
        more = len(problems) - _MOST_LINES_SHOWN
        shown = list(problems[:_MOST_LINES_SHOWN])
        return cls(shown + ([Violation(file, f"{more} more lines are wrong")] if more > 0 else []))


class ModelError(BidtrieError):
    """A checkpoint cannot be loaded: unknown architecture, missing or misshapen tensor, cut-off file."""


class CatalogError(BidtrieError):
    """A catalog cannot be built or loaded."""


class EngineError(BidtrieError):
    """An engine was used wrongly, or cannot take the work; the engine's state is as before the call."""


class OutOfSlots(EngineError):
    """The KV cache has no room for the nodes of this step."""


class DeadlineExceeded(BidtrieError):
    """The request's deadline passed before its answer was ready."""


class Overloaded(BidtrieError):
    """No room for another request now; `retry_after_s` seconds from now there may be."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(BidtrieError):
    """The service is loading, draining or stopped."""


class EngineLost(EngineError, NotReady):
    """What the engine computed with has failed or died; only a restart helps. Clients are told to go elsewhere."""
