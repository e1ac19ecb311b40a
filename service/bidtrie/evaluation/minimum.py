"""The least value of a function of one number between bounds."""

from collections.abc import Callable
from math import sqrt

_GOLDEN = (sqrt(5) - 1) / 2
_POINTS = 33


def minimum(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-4) -> float:
    """Where a function is least between `low` and `high`, to within `tolerance`.

    Golden section search (Kiefer 1953, "Sequential minimax search for a maximum") about the best point of an even
    grid, so that one valley that the grid sees does for functions with several. Ties go to the smaller argument.
    """
    step = (high - low) / (_POINTS - 1)
    grid = [low + i * step for i in range(_POINTS)]
    best = min(grid, key=function)
    left, right = max(low, best - step), min(high, best + step)
    a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    value_a, value_b = function(a), function(b)
    while right - left > tolerance:
        if value_a <= value_b:
            right, b, value_b = b, a, value_a
            a = right - _GOLDEN * (right - left)
            value_a = function(a)
        else:
            left, a, value_a = a, b, value_b
            b = left + _GOLDEN * (right - left)
            value_b = function(b)
    # The bounds themselves are never inside a section.
    return min(low, high, (left + right) / 2, key=function)
