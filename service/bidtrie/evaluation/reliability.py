"""How far stated probabilities are from what comes true: reliability bins and the expected calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

BINS = 15
_DRAWS = 500


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like probability: how many, their mean probability, and the share that was right."""

    n: int
    probability: float
    right: float


def equal_width(probabilities: Float64, right: Bool) -> list[Bin]:
    """The non-empty ones of 15 bins of equal width, each without its lower and with its upper edge, 0 in the first.

    probabilities float64 [n], right bool [n]: what was stated, and whether it came true.
    """
    index = np.clip(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return _bins([np.flatnonzero(index == i) for i in range(BINS)], probabilities, right)


def equal_mass(probabilities: Float64, right: Bool) -> list[Bin]:
    """At most 15 bins of equally many answers (one more in the first ones), in order of their probability."""
    return _bins(np.array_split(np.argsort(probabilities, kind="stable"), BINS), probabilities, right)


def _bins(members: Sequence[NDArray[np.int64]], probabilities: Float64, right: Bool) -> list[Bin]:
    return [
        Bin(len(each), float(probabilities[each].mean()), float(right[each].mean()))
        for each in members
        if len(each)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean distance of probability and share over the bins, by their sizes.

    With equal widths: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599; with equal masses:
    Nixon et al. 2019, "Measuring Calibration in Deep Learning", arXiv 1904.01685.
    """
    return sum(each.n * abs(each.probability - each.right) for each in bins) / sum(each.n for each in bins)


def error_if_calibrated(probabilities: Float64) -> float:
    """The equal-width error that so many answers would have on average if their probabilities were true.

    Not 0, since the shares of a sample vary; mean of 500 seeded draws. An error near it is no evidence against them.
    """
    draws = np.random.default_rng(0).random((_DRAWS, len(probabilities))) < probabilities
    return float(np.mean([calibration_error(equal_width(probabilities, right)) for right in draws]))
