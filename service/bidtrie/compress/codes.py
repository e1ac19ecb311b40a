"""Codes of single weights: the nearest one, what each stands for, and how they are packed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.fields import printable
from bidtrie.models.group_tensor import GroupFormat

Half = NDArray[np.float16]
Codes = NDArray[np.uint8]


def to_half(values: NDArray[Any], what: str, name: str) -> Half:
    """float16; raises ModelError naming `name` where a `what` is too large for it."""
    with np.errstate(over="ignore"):
        # Adding 0 makes a -0 a +0, so that a group of zeros is one, whatever the signs.
        rounded: Half = values.astype(np.float16) + np.float16(0)
    if not np.isfinite(rounded).all():
        raise ModelError(
            f"tensor {printable(name)}: a {what} of {np.abs(values).max():g} is needed, expected at most 65504 "
            "(weights too large for float16)"
        )
    return rounded


def nearest_codes(
    values: NDArray[Any],
    scale: NDArray[Any],
    minimum: NDArray[Any] | None,
    format: GroupFormat,
    table: NDArray[np.int8] | None,
) -> Codes:
    """The nearest code of each value; scale and minimum broadcast to it. Where the scale is 0, any code does."""
    offsets = values if minimum is None else values - minimum.astype(np.float32)
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
        nearest: Codes = order.astype(np.uint8)[np.searchsorted(between, steps)]
        return nearest
    zero = 0 if minimum is not None else 8
    chosen: Codes = np.clip(np.rint(steps) + zero, 0, 15).astype(np.uint8)
    return chosen


def code_units(format: GroupFormat, table: NDArray[np.int8] | None) -> NDArray[np.float64]:
    """float64 [256 or 16]: what each code stands for before scaling."""
    if format.bits == 8:
        return np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    if table is not None:
        return table.astype(np.float64)
    return np.arange(16, dtype=np.float64) - (0 if format.minimum else 8)


def pack_codes(codes: Codes, bits: int) -> Codes:
    """The bytes of [rows, kept] codes, as GroupTensor has them."""
    if bits == 8:
        return codes
    return codes[:, ::2] | codes[:, 1::2] << np.uint8(4)
