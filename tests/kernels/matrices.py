"""Random weight matrices in every packed format, and what float64 makes of them."""

from dataclasses import dataclass

import numpy as np
from bidtrie._native import PackedMatrix
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

GROUP = 32
GGML = {"q4_1": GGMLQuantizationType.Q4_1, "q8_0": GGMLQuantizationType.Q8_0}
#: Bytes of a block's float16 numbers, and of its codes.
BLOCK = {"q4_1": (4, 16), "q8_0": (2, 32)}
FORMATS = ("float32", "q4_1", "q8_0")


@dataclass(frozen=True)
class Matrix:
    """A matrix [rows, cols] as the engine packs it, and its values as gguf-py reads them."""

    format: str
    packed: PackedMatrix
    values: NDArray[np.float32]

    def output_bound(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far `packed.linear(x)` [nodes, rows] may be from float64.

        Activations are rounded to a_scale * code with a_scale = max |x| / 127 over a group, so each moves by at most
        a_scale / 2, and a hair more since a_scale and x / a_scale are rounded themselves. Float32 sums: a chain of
        one fused multiply-add a group (two for Q4_1; one a vector of 8 columns for float32 weights), each off by at
        most 2^-24 of the terms' magnitudes. Q4_1 sums codes and minima apart, which may be larger than the weights.
        """
        groups = np.abs(self.values.astype(np.float64))
        rows, cols = groups.shape
        padding = -cols % GROUP
        weights = np.pad(groups, ((0, 0), (0, padding))).reshape(rows, -1, GROUP).sum(axis=2)
        peak = (
            np.pad(np.abs(x.astype(np.float64)), ((0, 0), (0, padding)))
            .reshape(len(x), -1, GROUP)
            .max(axis=2)
        )
        apart = 0.0 if self.format == "float32" else 64.0
        arithmetic = (peak @ (weights.T + apart)) * (2 * cols / 8 + 40) * 2.0**-24
        rounding = 0.0 if self.format == "float32" else (peak / 127 / 2 * (1 + 1e-4)) @ weights.T
        return arithmetic + rounding


def blocks_of(format: str, rows: int, cols: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """GGUF blocks with every code; scales and minima below 1 in magnitude, of either sign, some subnormal."""
    halves, codes = BLOCK[format]
    numbers = rng.integers(0, 0x3C00, (rows, cols // GROUP, halves // 2), dtype=np.uint16)
    numbers |= rng.integers(0, 2, numbers.shape, dtype=np.uint16) << np.uint16(15)
    blocks = np.concatenate(
        [numbers.view(np.uint8), rng.integers(0, 256, (rows, cols // GROUP, codes), dtype=np.uint8)], axis=2
    )
    return blocks.reshape(rows, -1)


def random_matrix(format: str, rows: int, cols: int, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    if format == "float32":
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        return Matrix(format, PackedMatrix(format, (rows, cols), values), values)
    blocks = blocks_of(format, rows, cols, rng)
    values = dequantize(blocks, GGML[format])
    return Matrix(format, PackedMatrix(format, (rows, cols), blocks), values)
