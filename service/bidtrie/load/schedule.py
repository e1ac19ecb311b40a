"""The rate of requests over time: pieces on which it is a straight line.

With the expected count N(t) = integral of the rate up to t, and its inverse, arrivals of any schedule come from those
at rate 1: whole counts for constant arrivals, sums of exponential draws for a Poisson process (time rescaling).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidtrie.load.options import MAX_SECONDS, LoadOptions, ScheduleName

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Piece:
    """From `start` (s) to the start of the next piece the rate is `rate + slope * (t - start)`, requests a second."""

    start: float
    rate: float
    slope: float = 0.0


class Schedule:
    """Pieces in order of time, the first at 0, the last without end; the rate is above 0 everywhere."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._starts = np.array([piece.start for piece in pieces])
        self._rates = np.array([piece.rate for piece in pieces])
        self._slopes = np.array([piece.slope for piece in pieces])
        lengths = np.diff(self._starts)
        within = self._rates[:-1] * lengths + 0.5 * self._slopes[:-1] * lengths**2
        self._counts = np.concatenate([[0.0], np.cumsum(within)])

    def expected(self, times: npt.ArrayLike) -> Floats:
        """Requests expected from 0 up to each time (s)."""
        at = np.asarray(times, dtype=np.float64)
        piece = np.searchsorted(self._starts, at, side="right") - 1
        since = at - self._starts[piece]
        count: Floats = self._counts[piece] + (self._rates[piece] + 0.5 * self._slopes[piece] * since) * since
        return count

    def time_of(self, counts: npt.ArrayLike) -> Floats:
        """The times (s) at which so many requests are expected: the inverse of `expected`."""
        wanted = np.asarray(counts, dtype=np.float64)
        piece = np.searchsorted(self._counts, wanted, side="right") - 1
        left = wanted - self._counts[piece]
        rate, slope = self._rates[piece], self._slopes[piece]
        # The root of slope/2 x² + rate x = left in the form that is stable for a slope near 0. Rounding may take the
        # square just below 0 at the end of a falling piece.
        root = np.sqrt(np.maximum(rate**2 + 2 * slope * left, 0.0))
        time: Floats = self._starts[piece] + 2 * left / (rate + root)
        return time


def make_schedule(options: LoadOptions) -> Schedule:
    """The schedule that the options name; they have passed their check."""
    if options.load_schedule is ScheduleName.CONST:
        return Schedule([Piece(0.0, options.rps)])
    start, step, end = options.first_rate, options.load_step or 0.0, options.load_end
    if options.load_schedule is ScheduleName.LINE:
        pieces = [Piece(0.0, start, step)]
        if end is not None:
            pieces.append(Piece((end - start) / step, end))
        return Schedule(pieces)
    return Schedule(_steps(start, step, options.load_step_duration or 1.0, end, _horizon(options)))


def _steps(start: float, step: float, step_s: float, end: float | None, horizon_s: float) -> list[Piece]:
    most = math.ceil(horizon_s / step_s)
    if end is not None:
        most = min(most, math.ceil((end - start) / step - 1e-9))
    rates = [start + step * number for number in range(most + 1)]
    if end is not None and abs(rates[-1] - start) > abs(end - start):
        rates[-1] = end
    return [Piece(number * step_s, rate) for number, rate in enumerate(rates)]


def _horizon(options: LoadOptions) -> float:
    """Seconds that no run exceeds; the rate stays what it is afterwards."""
    horizon = MAX_SECONDS if options.duration is None else options.duration
    if options.total is not None and options.load_end is None:
        # The rate rises from here on, and ten standard deviations of a Poisson count are never seen.
        horizon = min(horizon, (options.total + 10 * math.sqrt(options.total) + 10) / options.first_rate)
    return horizon
