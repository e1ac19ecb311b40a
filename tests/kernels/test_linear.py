"""Products with packed weights: against float64 within a derived bound, and the same bits however they are computed."""

import numpy as np
import pytest
from bidtrie._native import instruction_sets
from kernels.matrices import FORMATS, GGUF_BLOCK, GROUP_SIZES, KINDS, random_matrix
from numpy.typing import NDArray

NODES = (1, 2, 3, 7, 8, 9, 16, 33, 64, 128)


def activations(nodes: int, cols: int, seed: int) -> NDArray[np.float32]:
    """Rows of very different sizes, with outliers; the last one is zeros."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((nodes, cols)) * 10.0 ** rng.integers(-3, 4, (nodes, 1))
    x[:, ::41] *= 30
    x[-1] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("nodes", NODES)
def test_linear_within_the_bound(format: str, nodes: int, instruction_set: str) -> None:
    matrix = random_matrix(format, 43, 96, seed=nodes)
    x = activations(nodes, 96, seed=nodes)
    expected = x.astype(np.float64) @ matrix.values.astype(np.float64).T
    error = np.abs(matrix.packed.linear(x, instruction_set) - expected)
    assert (error <= matrix.output_bound(x)).all()
    assert not error[-1].any()


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize(("rows", "cols"), [(1, 16), (15, 48), (17, 112), (33, 272), (20, 576)])
def test_any_group_size_and_row_length(
    format: str, group_size: int, rows: int, cols: int, instruction_set: str
) -> None:
    """Rows that end within a block, a group, or a tile."""
    matrix = random_matrix(format, rows, cols, seed=cols + group_size, group_size=group_size)
    x = activations(6, cols, seed=rows)
    expected = x.astype(np.float64) @ matrix.values.astype(np.float64).T
    error = np.abs(matrix.packed.linear(x, instruction_set) - expected)
    assert (error <= matrix.output_bound(x)).all()


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize("group_size", [16, 32, 256])
@pytest.mark.parametrize("sign", [1, -1, 0])
def test_nothing_overflows(format: str, group_size: int, sign: int, instruction_set: str) -> None:
    """The largest codes with activations that all round to 127, or to -127, or to both in turn."""
    matrix = random_matrix(format, 32, 512, seed=3, group_size=group_size, extreme=True)
    x = np.full((9, 512), 3.0 if sign >= 0 else -3.0, np.float32)
    if sign == 0:
        x[:, ::2] = -3.0
    expected = x.astype(np.float64) @ matrix.values.astype(np.float64).T
    assert (np.abs(matrix.packed.linear(x, instruction_set) - expected) <= matrix.output_bound(x)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_the_bound_is_not_slack(format: str) -> None:
    """A negative control: one weight of a row off by its largest, where activations are large, breaks the bound."""
    matrix = random_matrix(format, 64, 576, seed=5)
    x = activations(8, 576, seed=5)[:-1]
    values = matrix.values.astype(np.float64)
    values[:, 41] += np.abs(values).max(axis=1)
    error = np.abs(matrix.packed.linear(x) - x.astype(np.float64) @ values.T)
    assert (error > matrix.output_bound(x)).any()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (8, 64), (43, 96), (192, 576), (100, 1536)])
def test_bits_depend_on_nothing(format: str, rows: int, cols: int) -> None:
    """Neither the instruction set, nor other nodes, nor which rows are asked for, change a bit."""
    matrix = random_matrix(format, rows, cols, seed=rows, group_size=32 if format in GGUF_BLOCK else 64)
    x = activations(19, cols, seed=cols)
    expected = matrix.packed.linear(x, instruction_sets()[0])
    rng = np.random.default_rng(1)
    for instruction_set in instruction_sets():
        for first in range(0, len(x), 3):
            for count in (1, 2, 3, 5, 11):
                part = matrix.packed.linear(x[first : first + count], instruction_set)
                np.testing.assert_array_equal(part, expected[first : first + count])
        ids = rng.integers(0, rows, 20, dtype=np.int32)
        np.testing.assert_array_equal(matrix.packed.rows(x, ids, instruction_set), expected[:, ids])
