"""What became of every request of a run."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bidtrie.load.schedule import Floats

#: Statuses beside gRPC's own, which are 0 (OK) and above.
NOT_SENT = -1
"""The run was stopped before its time came."""
DROPPED = -2
"""Its time came, but too many were in flight: the generator did not send it."""
UNFINISHED = -3
"""Its time came, and it was not answered when the run was stopped."""


class Answer(NamedTuple):
    """What kind of answer an OK was."""

    source: str
    """Name of the proto's Source; empty where the response has none."""
    partial: bool
    fallback: bool
    cached: bool
    """Not computed for this request."""
    plan: str


@dataclass(frozen=True, slots=True)
class Records:
    """A row a request, in order of intended time; times are seconds from the start of what is counted."""

    intended: Floats
    sent: Floats
    """NaN: not sent."""
    done: Floats
    """NaN: no answer."""
    status: npt.NDArray[np.int8]
    """gRPC's code, or one of those above."""
    answer: npt.NDArray[np.int16]
    """Index in `answers`; -1: no OK."""
    answers: tuple[Answer, ...]
    errors: dict[tuple[int, str], int]
    """How often each code and message came; the message of the rarer ones is left out where there are very many."""

    @property
    def latency(self) -> Floats:
        """Seconds from the intended time to the answer; NaN: no answer."""
        return self.done - self.intended

    @property
    def lag(self) -> Floats:
        """Seconds from the intended to the actual time of sending; NaN: not sent."""
        return self.sent - self.intended
