"""Round to nearest: each weight becomes the closest value that its group's scale offers, on its own."""

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.codes import nearest_codes, pack_codes, to_half
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
        chosen = nearest_codes(groups, scale, minimum, format, table).reshape(len(values), -1)
        codes.append(pack_codes(chosen[:, : values.shape[1]], format.bits))
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
        return to_half((high / 2 - low / 2) / 15 * 2, "scale", name), to_half(low, "minimum", name)
    if format.bits == 8:
        return to_half(np.maximum(high, -low) / 127, "scale", name), None
    if table is not None:
        largest = np.float32(np.abs(table.astype(np.int16)).max())
        return to_half(np.maximum(high, -low) / largest, "scale", name), None
    return to_half(np.where(high > -low, high, low) / -8, "scale", name), None
