"""Round to nearest: each weight becomes the closest value that its group's scale offers, on its own."""

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.sparsity import largest_of_four, pack_positions
from bidtrie.compress.tables import normal_table
from bidtrie.errors import ModelError
from bidtrie.models.fields import printable
from bidtrie.models.group_tensor import GroupFormat, GroupTensor, row_chunks

Float32 = NDArray[np.float32]


def quantize(
    weight: Float32, format: GroupFormat, table: NDArray[np.int8] | None = None, *, name: str = "weight"
) -> GroupTensor:
    """`weight` [rows, cols] in `format`, cols a multiple of 16. `table`: of 16 entries; None: `normal_table()`.

    Scales are chosen per group, rounded to float16, and codes are the nearest for the rounded scale:
    8 bits: the largest magnitude becomes 127 or -127. 4 bits: the weight of largest magnitude becomes code 0, value -8
    (as GGUF's Q4_0 does), and the others are clipped. With a minimum: least and greatest weight become 0 and 15. With
    a table: the largest magnitude becomes the table's largest one. Sparse: the largest magnitudes of every four are
    kept, and the rest is as above. Raises ModelError naming `name` for weights that are not finite, and for scales or
    minimums that float16 cannot hold.
    """
    rows, cols = weight.shape
    if not format.table:
        table = None
    elif table is None:
        table = normal_table()
    codes, scales, minimums, positions = [], [], [], []
    for part in row_chunks(rows, cols):
        values = weight[part]
        if not np.isfinite(values).all():
            raise ModelError(f"tensor {printable(name)} holds values that are not finite")
        if format.pattern != "dense":
            kept = largest_of_four(np.abs(values), format.pattern)
            positions.append(pack_positions(kept))
            values = np.take_along_axis(values.reshape(len(values), -1, 4), kept, axis=2)
            values = values.reshape(len(values), -1)
        groups = _grouped(values, format.kept(format.group_size))
        scale, minimum = _scales(groups, format, table, name)
        chosen = _codes(groups, scale, minimum, format, table).reshape(len(values), -1)
        codes.append(_packed(chosen[:, : values.shape[1]], format.bits))
        scales.append(scale[..., 0])
        if minimum is not None:
            minimums.append(minimum[..., 0])
    return GroupTensor(
        format=format,
        shape=(rows, cols),
        codes=np.concatenate(codes),
        scales=np.concatenate(scales),
        minimums=np.concatenate(minimums) if minimums else None,
        table=table,
        positions=np.concatenate(positions) if positions else None,
    )


def _grouped(values: Float32, width: int) -> Float32:
    """[rows, groups, width]; a short last group is filled with its last value, which moves neither end of it."""
    padding = -values.shape[1] % width
    if padding:
        values = np.pad(values, ((0, 0), (0, padding)), mode="edge")
    return values.reshape(len(values), -1, width)


def _scales(
    groups: Float32, format: GroupFormat, table: NDArray[np.int8] | None, name: str
) -> tuple[NDArray[np.float16], NDArray[np.float16] | None]:
    """Scales and, if the format has them, minimums: float16 [rows, groups, 1]."""
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    # Halves, so that the range of huge weights does not overflow before it is found to be too large.
    if format.minimum:
        return _half((high / 2 - low / 2) / 15 * 2, "scale", name), _half(low, "minimum", name)
    if format.bits == 8:
        return _half(np.maximum(high, -low) / 127, "scale", name), None
    if table is not None:
        largest = np.float32(np.abs(table.astype(np.int16)).max())
        return _half(np.maximum(high, -low) / largest, "scale", name), None
    return _half(np.where(high > -low, high, low) / -8, "scale", name), None


def _half(values: Float32, what: str, name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        # Adding 0 makes a -0 a +0, so that a group of zeros is one, whatever the signs.
        rounded = values.astype(np.float16) + np.float16(0)
    if not np.isfinite(rounded).all():
        raise ModelError(
            f"tensor {printable(name)}: a {what} of {np.abs(values).max():g} is needed, expected at most 65504 "
            "(weights too large for float16)"
        )
    return rounded


def _codes(
    groups: Float32,
    scale: NDArray[np.float16],
    minimum: NDArray[np.float16] | None,
    format: GroupFormat,
    table: NDArray[np.int8] | None,
) -> NDArray[np.uint8]:
    """The nearest code of each weight, uint8 [rows, groups, width]; where the scale is 0, any does."""
    offsets = groups if minimum is None else groups - minimum.astype(np.float32)
    divisor = np.where(scale == 0, np.float32(1), scale.astype(np.float32))
    with np.errstate(over="ignore"):
        steps = offsets / divisor
    if format.bits == 8:
        signed: NDArray[np.int8] = np.clip(np.rint(steps), -128, 127).astype(np.int8)
        return signed.view(np.uint8)
    if table is not None:
        order = np.argsort(table, kind="stable")
        entries = table[order].astype(np.float32)
        between = (entries[1:] + entries[:-1]) / 2
        nearest: NDArray[np.uint8] = order.astype(np.uint8)[np.searchsorted(between, steps)]
        return nearest
    chosen: NDArray[np.uint8] = np.clip(np.rint(steps) + (8 if minimum is None else 0), 0, 15).astype(
        np.uint8
    )
    return chosen


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The bytes of [rows, kept] codes."""
    if bits == 8:
        return codes
    return codes[:, ::2] | codes[:, 1::2] << np.uint8(4)
