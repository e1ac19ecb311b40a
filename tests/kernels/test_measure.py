"""What benchmarks measure with: counts are right and wrong arguments are errors. Times are not judged."""

import numpy as np
import pytest
from bidtrie import _native
from bidtrie.errors import EngineError
from bidtrie.models.tensor import Tensor
from kernels.matrices import KINDS, random_groups


def stack() -> _native.LinearStack:
    stack = _native.LinearStack()
    for rows, cols in ((40, 64), (48, 64), (64, 48)):
        stack.add(random_groups(KINDS["int4"], rows, cols, np.random.default_rng(0)))
    stack.add(Tensor("float32", (8, 16), np.ones((8, 16), np.float32)))
    return stack


def test_bytes_and_weights() -> None:
    # Tiles of 16 rows: scales (32 bytes a group), then blocks of 32 columns (256 bytes), both padded to 64.
    packed = 3 * (64 + 512) + 3 * (64 + 512) + 4 * (64 + 512) + 8 * 16 * 4
    assert stack().bytes == packed
    assert stack().weights == 40 * 64 + 48 * 64 + 64 * 48 + 8 * 16


@pytest.mark.parametrize("instruction_set", ["", *_native.instruction_sets()])
def test_a_time_for_each_pass(instruction_set: str) -> None:
    for threads in (1, 2):
        seconds = stack().time(9, threads, 4, instruction_set)
        assert len(seconds) == 4
        assert min(seconds) > 0


def test_rates_are_positive() -> None:
    assert all(rate > 0 for rate in _native.read_bandwidth(1 << 20, 2, 3))
    for instruction_set in _native.instruction_sets():
        assert _native.multiply_add_peak(instruction_set, 1, 0.001) > 0


def test_wrong_arguments() -> None:
    with pytest.raises(EngineError, match="threads: 0"):
        _native.read_bandwidth(1 << 20, 0, 1)
    with pytest.raises(EngineError, match="instruction set"):
        _native.multiply_add_peak("mmx", 1, 0.001)
    with pytest.raises(EngineError, match="nodes: 0"):
        stack().time(0, 1, 1)
    with pytest.raises(EngineError, match="threads: 5000"):
        stack().time(1, 5000, 1)
