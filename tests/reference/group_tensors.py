"""Random weights in every group format, and what they mean, worked out one element at a time."""

import numpy as np
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from numpy.typing import NDArray

#: Every meaning of codes, with several group sizes.
FORMATS = (
    GroupFormat(8, 16),
    GroupFormat(8, 32),
    GroupFormat(8, 96),
    GroupFormat(4, 16),
    GroupFormat(4, 32),
    GroupFormat(4, 256),
    GroupFormat(4, 32, minimum=True),
    GroupFormat(4, 96, minimum=True),
    GroupFormat(4, 32, table=True),
    GroupFormat(4, 64, table=True),
    GroupFormat(4, 16, pattern="2:4"),
    GroupFormat(4, 64, pattern="2:4"),
    GroupFormat(4, 32, table=True, pattern="2:4"),
    GroupFormat(4, 32, pattern="1:4"),
    GroupFormat(4, 96, table=True, pattern="1:4"),
)
_KEPT = {"dense": 4, "2:4": 2, "1:4": 1}


def _halves(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Numbers below 1 in magnitude, of either sign, some subnormal."""
    bits = rng.integers(0, 0x3C00, shape, dtype=np.uint16)
    return (bits | rng.integers(0, 2, shape, dtype=np.uint16) << np.uint16(15)).view(np.float16)


def random_group_tensor(format: GroupFormat, rows: int, cols: int, seed: int = 0) -> GroupTensor:
    """A weight with every code, random scales of either sign, a random table and random positions."""
    rng = np.random.default_rng(seed)
    per_four = _KEPT[format.pattern]
    kept, groups = cols // 4 * per_four, -(-cols // format.group_size)
    positions = None
    if format.pattern != "dense":
        places = np.sort(rng.permuted(np.tile(np.arange(4), (rows, cols // 4, 1)), axis=2)[..., :per_four])
        by_byte = places.reshape(rows, kept // 4, 4).astype(np.uint8)
        positions = sum(by_byte[..., i] * np.uint8(4**i) for i in range(4))
    return GroupTensor(
        format=format,
        shape=(rows, cols),
        codes=rng.integers(0, 256, (rows, kept * format.bits // 8), dtype=np.uint8),
        scales=_halves(rng, (rows, groups)),
        minimums=_halves(rng, (rows, groups)) if format.minimum else None,
        table=rng.permutation(np.arange(-32, 33, dtype=np.int8))[:16] if format.table else None,
        positions=positions,
    )


def kept_columns(tensor: GroupTensor, row: int) -> list[int]:
    """The column of each stored weight of a row, in the order of storing."""
    cols, per_four = tensor.shape[1], _KEPT[tensor.format.pattern]
    if tensor.positions is None:
        return list(range(cols))
    columns = []
    for i in range(cols // 4 * per_four):
        position = int(tensor.positions[row, i // 4]) >> 2 * (i % 4) & 3
        columns.append(i // per_four * 4 + position)
    return columns


def code_value(tensor: GroupTensor, code: int) -> int:
    """What a stored code stands for before scaling."""
    if tensor.format.bits == 8:
        return code - 256 if code > 127 else code
    if tensor.table is not None:
        return int(tensor.table[code])
    return code if tensor.format.minimum else code - 8


def stored_code(tensor: GroupTensor, row: int, index: int) -> int:
    """The code of the weight that is stored as number `index` of a row."""
    if tensor.format.bits == 8:
        return int(tensor.codes[row, index])
    byte = int(tensor.codes[row, index // 2])
    return byte & 15 if index % 2 == 0 else byte >> 4


def slow_dequantize(tensor: GroupTensor) -> NDArray[np.float32]:
    """The definition of each element: a product in float32, then a sum in float32; +0 where nothing is stored."""
    values = np.zeros(tensor.shape, np.float32)
    for row in range(tensor.shape[0]):
        for index, column in enumerate(kept_columns(tensor, row)):
            group = column // tensor.format.group_size
            value = np.float32(tensor.scales[row, group]) * np.float32(
                code_value(tensor, stored_code(tensor, row, index))
            )
            if tensor.minimums is not None:
                value = np.float32(value) + np.float32(tensor.minimums[row, group])
            values[row, column] = value
    return values
