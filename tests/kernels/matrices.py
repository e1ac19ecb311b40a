"""Random weight matrices in every packed format, and what float64 makes of them."""

from dataclasses import dataclass, replace

import numpy as np
from bidtrie._native import PackedMatrix
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.tensor import Tensor
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

BLOCK = 32
GGML = {"q4_1": GGMLQuantizationType.Q4_1, "q8_0": GGMLQuantizationType.Q8_0}
#: Bytes of a GGUF block's float16 numbers, and of its codes.
GGUF_BLOCK = {"q4_1": (4, 16), "q8_0": (2, 32)}
KINDS = {
    "int8": GroupFormat(8, 32),
    "int4": GroupFormat(4, 32),
    "int4-min": GroupFormat(4, 32, minimum=True),
    "int4-table": GroupFormat(4, 32, table=True),
    "2:4": GroupFormat(4, 32, pattern="2:4"),
    "2:4-table": GroupFormat(4, 32, table=True, pattern="2:4"),
    "1:4": GroupFormat(4, 32, pattern="1:4"),
    "1:4-table": GroupFormat(4, 32, table=True, pattern="1:4"),
}
FORMATS = ("float32", *GGUF_BLOCK, *KINDS)
GROUP_SIZES = (16, 32, 64, 96, 256)
#: What float16 numbers are drawn from: magnitudes below 1, some subnormal, or large ones.
MODERATE, EXTREME = 0x3C00, 0x4C00


@dataclass(frozen=True)
class Matrix:
    """A matrix [rows, cols] as the engine packs it, and its values as a reference reads them."""

    format: str
    packed: PackedMatrix
    values: NDArray[np.float32]
    code_span: NDArray[np.float64]
    """[rows] largest magnitude that codes and minima may have where they are summed up apart from each other."""

    def output_bound(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far `packed.linear(x)` [nodes, rows] may be from float64.

        Activations are rounded to a_scale * code with a_scale = max |x| / 127 over a block of 32, so each moves by at
        most a_scale / 2, and a hair more since a_scale and x / a_scale are rounded themselves. Integer sums are exact.
        Float32 sums: a chain of at most four fused multiply-adds a block (one a vector of 16 columns for float32
        weights), each off by at most 2^-24 of the terms' magnitudes. Codes and minima are summed apart, and may be
        larger than the weights.
        """
        magnitudes = np.abs(self.values.astype(np.float64))
        rows, cols = magnitudes.shape
        padding = -cols % BLOCK
        weights = np.pad(magnitudes, ((0, 0), (0, padding))).reshape(rows, -1, BLOCK).sum(axis=2)
        peak = (
            np.pad(np.abs(x.astype(np.float64)), ((0, 0), (0, padding)))
            .reshape(len(x), -1, BLOCK)
            .max(axis=2)
        )
        if self.format == "float32":
            return (peak @ weights.T) * (cols / 16 + 40) * 2.0**-24
        apart = weights + 2 * BLOCK * self.code_span[:, None]
        arithmetic = (peak @ apart.T) * (cols / 8 + 40) * 2.0**-24
        return arithmetic + (peak / 127 / 2 * (1 + 1e-4)) @ weights.T


def random_halves(
    shape: tuple[int, ...], rng: np.random.Generator, below: int = MODERATE
) -> NDArray[np.float16]:
    """float16 numbers of either sign, some subnormal."""
    bits = rng.integers(0, below, shape, dtype=np.uint16)
    bits |= rng.integers(0, 2, shape, dtype=np.uint16) << np.uint16(15)
    return bits.view(np.float16)


def blocks_of(format: str, rows: int, cols: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """GGUF blocks with every code; scales and minima below 1 in magnitude."""
    halves, codes = GGUF_BLOCK[format]
    numbers = random_halves((rows, cols // BLOCK, halves // 2), rng)
    blocks = np.concatenate(
        [numbers.view(np.uint8), rng.integers(0, 256, (rows, cols // BLOCK, codes), dtype=np.uint8)], axis=2
    )
    return blocks.reshape(rows, -1)


def random_groups(
    format: GroupFormat, rows: int, cols: int, rng: np.random.Generator, *, extreme: bool = False
) -> GroupTensor:
    """Every code, position and table entry; `extreme`: only the codes that come closest to overflowing."""
    kept, groups = format.kept(cols), format.groups(cols)
    codes = rng.integers(0, 256, (rows, kept * format.bits // 8), dtype=np.uint8)
    if extreme:
        codes[:] = 0x80 if format.bits == 8 else 0xFF
    positions = None
    if format.pattern == "2:4":
        pairs = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]], np.uint8)
        chosen = pairs[rng.integers(0, 6, (rows, kept // 4, 2))].reshape(rows, kept // 4, 4)
        positions = (chosen << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8)
    elif format.pattern == "1:4":
        positions = rng.integers(0, 256, (rows, kept // 4), dtype=np.uint8)
    table = None
    if format.table:
        table = rng.integers(-32, 33, 16).astype(np.int8)
        table[[0, -1]] = -32, 32
    return GroupTensor(
        format,
        (rows, cols),
        codes,
        random_halves((rows, groups), rng, EXTREME if extreme else MODERATE),
        random_halves((rows, groups), rng) if format.minimum else None,
        table,
        positions,
    )


def random_matrix(
    format: str, rows: int, cols: int, seed: int, *, group_size: int = 32, extreme: bool = False
) -> Matrix:
    rng = np.random.default_rng(seed)
    if format == "float32":
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        return Matrix(format, PackedMatrix(Tensor(format, (rows, cols), values)), values, np.zeros(rows))
    if format == "q4_1" or format == "q8_0":
        blocks = blocks_of(format, rows, cols, rng)
        values = dequantize(blocks, GGML[format])
        span = np.full(rows, 16.0)
        return Matrix(format, PackedMatrix(Tensor(format, (rows, cols), blocks)), values, span)
    groups = random_groups(replace(KINDS[format], group_size=group_size), rows, cols, rng, extreme=extreme)
    largest = np.abs(groups.scales.astype(np.float64)).max(axis=1)
    span = 15 * largest + (
        0 if groups.minimums is None else np.abs(groups.minimums.astype(np.float64)).max(axis=1)
    )
    return Matrix(format, PackedMatrix(groups), groups.dequantize(), span)
