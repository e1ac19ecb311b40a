"""How long an answer takes from the engines' thread to its request's coroutine: time that a deadline has to leave."""

from bidtrie.scheduling.recent_quantile import RecentQuantile

_WINDOW, _QUANTILE = 256, 0.99
#: Bounds on the reserve, in seconds: for writing the response, and so that a hiccup does not eat every budget.
_LEAST_S, _MOST_S = 0.001, 0.02


class HandOff:
    """Remembers late hand-overs; used on the event loop."""

    def __init__(self) -> None:
        self._seconds = RecentQuantile(_WINDOW, _QUANTILE)

    @property
    def reserve_s(self) -> float:
        """Seconds that nearly all hand-overs of late took, and a millisecond for what comes after them."""
        if not self._seconds:
            return 2 * _LEAST_S
        return min(_LEAST_S + self._seconds.value(), _MOST_S)

    def note(self, seconds: float) -> None:
        """A hand-over took this long."""
        self._seconds.note(seconds)
