"""A weight matrix as small codes, with a scale for every group of columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.models.group_format import KEPT_OF_FOUR, GroupFormat

__all__ = [
    "COLUMN_MULTIPLE",
    "POSITION_SHIFTS",
    "TABLE_LIMIT",
    "GroupFormat",
    "GroupTensor",
    "part_layout",
    "row_chunks",
]

#: Rows are a multiple of so many columns, so that every pattern fills whole bytes.
COLUMN_MULTIPLE = 16
#: Entries of a table lie within this distance of 0.
TABLE_LIMIT = 32
_CHUNK_WEIGHTS = 1 << 19
_BYTES = np.arange(256, dtype=np.uint8)
#: Where a byte's four positions lie, the first one lowest.
POSITION_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def row_chunks(rows: int, cols: int) -> Iterator[slice]:
    """Slices of rows that are a few megabytes in float32 each: they bound memory and stay near the cache."""
    step = max(1, _CHUNK_WEIGHTS // cols)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


@dataclass(frozen=True, slots=True)
class GroupTensor:
    """A weight of `shape` [rows, cols], cols a multiple of 16; rows lie one after the other, columns in order.

    codes: uint8 [rows, kept * bits / 8], where kept = cols, or a half or a quarter of them by the pattern. Of 8 bits: a
        byte is a two's complement code. Of 4 bits: two codes a byte, the even one of the kept columns in the low half.
    scales: float16 [rows, groups], groups = ceil(cols / group_size): a row's last group may be short.
    minimums: float16 [rows, groups] with `format.minimum`, else None.
    table: int8 [16], values -32 to 32, with `format.table`, else None.
    positions: uint8 [rows, kept / 4] for a sparse pattern, else None: where in its four columns each kept weight is, 2
        bits each, the first in the lowest bits, ascending within a four.

    Constructing checks nothing: see `problem`.
    """

    format: GroupFormat
    shape: tuple[int, int]
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    minimums: NDArray[np.float16] | None = None
    table: NDArray[np.int8] | None = None
    positions: NDArray[np.uint8] | None = None

    def dequantize(self) -> NDArray[np.float32]:
        """The values as float32 [rows, cols].

        Scale times code is exact in float32, so a minimum is added with one rounding. Weights that a pattern does not
        keep are +0.
        """
        rows, cols = self.shape
        kept = self.format.kept(cols)
        in_group = self.format.kept(self.format.group_size)
        values = np.zeros((rows, cols), np.float32)
        pairs = None if self.format.bits == 8 else self._value_pairs()
        for part in row_chunks(rows, cols):
            if pairs is None:
                chunk = self.codes[part].view(np.int8).astype(np.float32)
            else:
                chunk = pairs[self.codes[part]].view(np.float32)
            chunk *= _per_weight(self.scales[part], in_group, kept)
            if self.minimums is not None:
                chunk += _per_weight(self.minimums[part], in_group, kept)
            if self.positions is None:
                values[part] = chunk
            else:
                fours = (part.stop - part.start, cols // 4, -1)
                positions = (self.positions[part, :, None] >> POSITION_SHIFTS & 3).reshape(fours)
                np.put_along_axis(values[part].reshape(fours), positions, chunk.reshape(fours), axis=2)
        return values

    def _value_pairs(self) -> NDArray[np.uint64]:
        """What each byte of two codes stands for before scaling: two float32 in one word, so one gather reads both."""
        if self.table is not None:
            values = self.table.astype(np.float32)
        else:
            values = np.arange(16, dtype=np.float32) - (0 if self.format.minimum else 8)
        return np.stack([values[_BYTES & 15], values[_BYTES >> 4]], axis=1).view(np.uint64)[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return sum(
            array.nbytes
            for array in (self.codes, self.scales, self.minimums, self.table, self.positions)
            if array is not None
        )

    @property
    def bits_per_weight(self) -> float:
        """All stored bits over the dense count of weights."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def is_finite(self) -> bool:
        """Whether every scale and minimum is finite."""
        stored = [self.scales] if self.minimums is None else [self.scales, self.minimums]
        return all(bool(np.isfinite(array).all()) for array in stored)

    def problem(self) -> str | None:
        """What is wrong with shapes, types, table or positions, naming the field; None if nothing is."""
        rows, cols = self.shape
        if rows < 1 or cols < COLUMN_MULTIPLE or cols % COLUMN_MULTIPLE:
            return f"shape is {list(self.shape)}, expected rows of a multiple of {COLUMN_MULTIPLE} columns"
        for field, (dtype, shape) in part_layout(self.format, self.shape).items():
            array = getattr(self, field)
            if array is None:
                return f"{field}: missing, expected {dtype.name} {list(shape)}"
            if array.dtype != dtype or array.shape != shape:
                return f"{field}: {array.dtype.name} {list(array.shape)}, expected {dtype.name} {list(shape)}"
        for field in ("minimums", "table", "positions"):
            if field not in part_layout(self.format, self.shape) and getattr(self, field) is not None:
                return f"{field}: given, expected none for {self.format.name}"
        # Widened: the magnitude of -128 does not fit in 8 bits.
        if self.table is not None and (np.abs(self.table.astype(np.int16)) > TABLE_LIMIT).any():
            return f"table: {self.table.tolist()}, expected entries of -{TABLE_LIMIT} to {TABLE_LIMIT}"
        # One position a four has nothing to be in order with.
        if self.positions is not None and KEPT_OF_FOUR[self.format.pattern] == 2:
            fields = _BYTES[:, None] >> POSITION_SHIFTS & 3
            ascending = (fields[:, 0] < fields[:, 1]) & (fields[:, 2] < fields[:, 3])
            if not ascending[self.positions].all():
                return "positions: not ascending, expected two different columns of every four, in order"
        return None


def part_layout(
    format: GroupFormat, shape: tuple[int, int]
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of each array that a GroupTensor of this format and shape has, by field."""
    rows, cols = shape
    kept, groups = format.kept(cols), format.groups(cols)
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "codes": (np.dtype(np.uint8), (rows, kept * format.bits // 8)),
        "scales": (np.dtype(np.float16), (rows, groups)),
    }
    if format.minimum:
        layout["minimums"] = (np.dtype(np.float16), (rows, groups))
    if format.table:
        layout["table"] = (np.dtype(np.int8), (16,))
    if format.pattern != "dense":
        layout["positions"] = (np.dtype(np.uint8), (rows, kept // 4))
    return layout


def _per_weight(groups: NDArray[np.float16], in_group: int, kept: int) -> NDArray[np.float32]:
    """A number of every group, float32, for each weight that is kept of it."""
    return np.repeat(groups.astype(np.float32), in_group, axis=1)[:, :kept]
