"""Which weights of every four columns are kept, and how their places are written."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.models.group_format import KEPT_OF_FOUR
from bidtrie.models.group_tensor import POSITION_SHIFTS


def largest_of_four(magnitudes: NDArray[np.float32], pattern: str) -> NDArray[np.intp]:
    """The columns of the largest magnitudes of every four, ascending; of equal ones, the lowest column.

    `magnitudes`: [rows, cols], not negative; `pattern`: "2:4" or "1:4". Gives [rows, cols / 4, kept], 0 to 3.
    """
    fours = magnitudes.reshape(len(magnitudes), -1, 4)
    first: NDArray[np.intp] = fours.argmax(axis=2, keepdims=True)
    if KEPT_OF_FOUR[pattern] == 1:
        return first
    rest = fours.copy()
    np.put_along_axis(rest, first, -1, axis=2)
    second = rest.argmax(axis=2, keepdims=True)
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=2)


def pack_positions(positions: NDArray[np.intp]) -> NDArray[np.uint8]:
    """[rows, cols / 4, kept] as GroupTensor has them: uint8 [rows, cols / 16 * kept], 2 bits each."""
    by_byte = positions.astype(np.uint8).reshape(len(positions), -1, 4)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(by_byte << POSITION_SHIFTS, axis=2)
    return packed


def likely_mask(weight: NDArray[Any], importance: NDArray[Any], pattern: str) -> NDArray[np.bool_]:
    """bool [rows, cols]: what each four would keep if columns, of `importance` [cols], did not depend on each other."""
    kept = np.zeros((len(weight), weight.shape[1] // 4, 4), np.bool_)
    places = largest_of_four((weight * weight * importance).astype(np.float32), pattern)
    np.put_along_axis(kept, places, True, axis=2)
    return kept.reshape(weight.shape)
