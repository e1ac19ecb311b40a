"""A quantile of the last so many values."""

from bisect import bisect_left, insort
from collections import deque


class RecentQuantile:
    """Of at most `window` values; a note costs a shift of that many numbers."""

    def __init__(self, window: int, quantile: float) -> None:
        self._window, self._quantile = window, quantile
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._recent)

    def note(self, value: float) -> None:
        """Take in a value; the oldest one leaves when the window is full."""
        self._recent.append(value)
        insort(self._sorted, value)
        if len(self._recent) > self._window:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def value(self) -> float:
        """The least value that at least the quantile's share of the window does not exceed; there has to be one."""
        return self._sorted[min(int(self._quantile * len(self._sorted)), len(self._sorted) - 1)]
