"""How long an answer takes from the engines' thread to its request's coroutine: time that a deadline has to leave."""

from bisect import bisect_left, insort
from collections import deque

_WINDOW, _QUANTILE = 256, 0.99
#: Bounds on the reserve, in seconds: for writing the response, and so that a hiccup does not eat every budget.
_LEAST_S, _MOST_S = 0.001, 0.02


class HandOff:
    """Remembers late hand-overs; used on the event loop."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    @property
    def reserve_s(self) -> float:
        """Seconds that nearly all hand-overs of late took, and a millisecond for what comes after them."""
        if not self._sorted:
            return 2 * _LEAST_S
        place = min(int(_QUANTILE * len(self._sorted)), len(self._sorted) - 1)
        return min(_LEAST_S + self._sorted[place], _MOST_S)

    def note(self, seconds: float) -> None:
        """A hand-over took this long."""
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > _WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
