"""One weight tensor, as it lies in the checkpoint."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

Format = Literal["float32", "q4_1", "q8_0"]

#: Elements a block, and bytes a block, of the block formats that are kept as they are (ggml's block_q4_1: scale
#: and minimum as float16, 32 codes of 4 bits; block_q8_0: scale as float16, 32 signed codes of 8 bits).
BLOCK: dict[Format, tuple[int, int]] = {"q4_1": (32, 20), "q8_0": (32, 34)}
#: How many float16 numbers open a block.
BLOCK_HALVES: dict[Format, int] = {"q4_1": 2, "q8_0": 1}
_GGML: dict[Format, GGMLQuantizationType] = {
    "q4_1": GGMLQuantizationType.Q4_1,
    "q8_0": GGMLQuantizationType.Q8_0,
}
_FLOAT16_EXPONENT = np.uint16(0x7C00)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight of logical `shape`.

    data: float32 of that shape, or for a block format the raw GGUF blocks, uint8 [rows, bytes a row]. Often a
    read-only view of the mapped file.
    """

    format: Format
    shape: tuple[int, ...]
    data: NDArray[Any]

    def dequantize(self) -> NDArray[np.float32]:
        """The values as float32, of `shape`."""
        if self.format == "float32":
            return self.data
        values: NDArray[np.float32] = dequantize(self.data, _GGML[self.format])
        return values.reshape(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the weight takes, scales included."""
        return self.data.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes, scales included."""
        elements = self.data.size if self.format == "float32" else int(np.prod(self.shape))
        return 8 * self.data.nbytes / elements

    def is_finite(self) -> bool:
        """Whether every value (for blocks: every scale and minimum) is finite."""
        if self.format == "float32":
            # A sum runs at memory speed and is finite only if all summands are; it may overflow, rarely.
            with np.errstate(over="ignore", invalid="ignore"):
                return bool(np.isfinite(self.data.sum()) or np.isfinite(self.data).all())
        blocks = self.data.reshape(-1, BLOCK[self.format][1])
        halves = blocks.view("<u2")[:, : BLOCK_HALVES[self.format]]
        return not bool(((halves & _FLOAT16_EXPONENT) == _FLOAT16_EXPONENT).any())
