"""Least squares with coefficients that are not negative."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Against features that always come together: a share of the diagonal, which decides nothing else.
_RIDGE = 1e-9
_TOLERANCE = 1e-10


def nnls(gram: Float64, moment: Float64) -> Float64:
    """The x >= 0 that minimises x·gram·x - 2 x·moment: float64 [k] from [k, k] (AᵀA) and [k] (Aᵀb).

    The active-set method of Lawson and Hanson ("Solving Least Squares Problems", 1974) on the normal equations, as Bro
    and de Jong 1997 ("A fast non-negativity-constrained least squares algorithm") have it. Features that were never
    seen (0 on the diagonal) stay 0.
    """
    size = len(moment)
    scale = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    seen = scale > 0
    scale[~seen] = 1.0
    # On equal footing: features differ by orders of magnitude.
    gram = gram / np.outer(scale, scale) + _RIDGE * np.eye(size)
    moment = moment / scale
    least = _TOLERANCE * max(float(np.abs(moment).max(initial=0.0)), 1e-300)
    x = np.zeros(size)
    free = np.zeros(size, np.bool_)
    for _ in range(3 * size):
        slope = np.where(seen & ~free, moment - gram @ x, -np.inf)
        entering = int(slope.argmax())
        if slope[entering] <= least:
            break
        free[entering] = True
        while True:
            at = np.flatnonzero(free)
            target = np.zeros(size)
            target[at] = np.linalg.solve(gram[np.ix_(at, at)], moment[at])
            negative = free & (target <= 0)
            if not negative.any():
                x = target
                break
            # As far towards the target as nothing becomes negative; what reaches 0 is held there.
            share = float((x[negative] / (x[negative] - target[negative])).min())
            x = x + share * (target - x)
            free &= x > 1e-15
            x[~free] = 0.0
            if not free.any():
                break
    return x / scale
