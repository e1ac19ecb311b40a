"""Packed weights mean exactly what gguf-py reads from the same bytes."""

import numpy as np
import pytest
from bidtrie._native import PackedMatrix
from gguf.quants import dequantize
from kernels.matrices import BLOCK, FORMATS, GGML, GROUP, random_matrix


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64, 67])
@pytest.mark.parametrize("cols", [32, 96, 576])
def test_unpack_equals_gguf(format: str, rows: int, cols: int) -> None:
    matrix = random_matrix(format, rows, cols, seed=rows * cols)
    unpacked = matrix.packed.unpack()
    assert unpacked.dtype == np.float32
    np.testing.assert_array_equal(unpacked.view(np.uint32), matrix.values.view(np.uint32))


@pytest.mark.parametrize("cols", [1, 5, 13, 100])
def test_float32_rows_of_any_length(cols: int) -> None:
    matrix = random_matrix("float32", 5, cols, seed=cols)
    np.testing.assert_array_equal(matrix.packed.unpack(), matrix.values)


@pytest.mark.parametrize("format", BLOCK)
def test_every_scale(format: str) -> None:
    """All finite float16 as scales (and in reverse as minima), subnormals and both zeros included."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[(halves & 0x7C00) != 0x7C00]
    size, codes = BLOCK[format]
    numbers = np.stack([halves, halves[::-1]], axis=1)[:, : size // 2]
    rng = np.random.default_rng(0)
    blocks = np.concatenate(
        [
            np.ascontiguousarray(numbers).view(np.uint8),
            rng.integers(0, 256, (len(halves), codes), dtype=np.uint8),
        ],
        axis=1,
    )

    unpacked = PackedMatrix(format, (len(halves), GROUP), blocks).unpack()
    np.testing.assert_array_equal(unpacked.view(np.uint32), dequantize(blocks, GGML[format]).view(np.uint32))
