"""Checks of what callers give to an engine, which every engine makes alike."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import EngineError

if TYPE_CHECKING:
    from bidtrie.models.checkpoint import Checkpoint

_INT32 = np.iinfo(np.int32)


def int32(name: str, value: Any) -> int:
    """An integer of 32 bits. Raises EngineError naming it."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise EngineError(f"{name}: {value!r}, expected an integer") from None
    if not _INT32.min <= number <= _INT32.max:
        raise EngineError(f"{name}: {number}, expected a 32-bit integer")
    return int(number)


def size(name: str, value: Any) -> int:
    """A positive integer of 32 bits. Raises EngineError naming it."""
    number = int32(name, value)
    if number < 1:
        raise EngineError(f"{name}: {number}, expected at least 1")
    return number


def vector(name: str, array: Any, dtype: type[np.generic] = np.int32) -> NDArray[Any]:
    """A contiguous array of one dimension. Raises EngineError naming it."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        raise EngineError(f"{name}: expected a one-dimensional array of {np.dtype(dtype).name}")
    return np.ascontiguousarray(array)


def handles(nodes: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int32]:
    """Handles of nodes, int32. Raises EngineError for anything else."""
    array = np.asarray(nodes)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise EngineError("nodes: expected a sequence of handles")
    if array.size and not (_INT32.min <= array.min() and array.max() <= _INT32.max):
        raise EngineError("nodes: expected handles, which are 32-bit integers")
    return np.ascontiguousarray(array, dtype=np.int32)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main_format(checkpoint: "Checkpoint") -> str:
    """The format of most matrices."""
    formats = Counter(str(tensor.format) for tensor in checkpoint.tensors.values() if len(tensor.shape) == 2)
    return formats.most_common(1)[0][0] if formats else "float32"
