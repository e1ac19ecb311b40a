"""Packed weights mean exactly what gguf-py, or an artefact's definition, makes of the same bytes."""

import numpy as np
import pytest
from bidtrie._native import PackedMatrix
from bidtrie.models.tensor import Tensor
from gguf.quants import dequantize
from kernels.matrices import BLOCK, FORMATS, GGML, GGUF_BLOCK, GROUP_SIZES, KINDS, random_matrix


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64, 67])
@pytest.mark.parametrize("cols", [32, 96, 576])
def test_unpack_is_exact(format: str, rows: int, cols: int) -> None:
    matrix = random_matrix(format, rows, cols, seed=rows * cols)
    unpacked = matrix.packed.unpack()
    assert unpacked.dtype == np.float32
    np.testing.assert_array_equal(unpacked.view(np.uint32), matrix.values.view(np.uint32))


@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("cols", [16, 48, 272, 576])
def test_unpack_any_group_size(format: str, group_size: int, cols: int) -> None:
    matrix = random_matrix(format, 35, cols, seed=cols, group_size=group_size)
    np.testing.assert_array_equal(matrix.packed.unpack().view(np.uint32), matrix.values.view(np.uint32))


@pytest.mark.parametrize("cols", [1, 5, 13, 100])
def test_float32_rows_of_any_length(cols: int) -> None:
    matrix = random_matrix("float32", 5, cols, seed=cols)
    np.testing.assert_array_equal(matrix.packed.unpack(), matrix.values)


@pytest.mark.parametrize("format", GGUF_BLOCK)
def test_every_scale(format: str) -> None:
    """All finite float16 as scales (and in reverse as minima), subnormals and both zeros included."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[(halves & 0x7C00) != 0x7C00]
    size, codes = GGUF_BLOCK[format]
    numbers = np.stack([halves, halves[::-1]], axis=1)[:, : size // 2]
    rng = np.random.default_rng(0)
    blocks = np.concatenate(
        [
            np.ascontiguousarray(numbers).view(np.uint8),
            rng.integers(0, 256, (len(halves), codes), dtype=np.uint8),
        ],
        axis=1,
    )

    unpacked = PackedMatrix(Tensor(format, (len(halves), BLOCK), blocks)).unpack()
    np.testing.assert_array_equal(unpacked.view(np.uint32), dequantize(blocks, GGML[format]).view(np.uint32))
