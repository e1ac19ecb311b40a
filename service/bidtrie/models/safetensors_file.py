"""The safetensors container: a JSON header and the tensors' bytes, every offset checked before it is used.

Format: https://github.com/huggingface/safetensors#format. Read here, without the package of that name, because its
numpy interface copies and lacks bfloat16.
"""

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.fields import printable

_MAX_HEADER = 100_000_000
_MAX_TENSORS = 1 << 16
FLOAT_TYPES = ("F32", "F16", "BF16")
_ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1}


@dataclass(frozen=True, slots=True)
class SafetensorsEntry:
    """A tensor of the file: type as the header names it, shape, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def values(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The bytes as `dtype`, of `shape`: a view of the file, unless that begins them where no such number may be."""
        stored = self.data.view(dtype.newbyteorder("<")).reshape(self.shape)
        return np.require(stored, dtype, "A")

    def to_float32(self) -> NDArray[np.float32]:
        """The values of one of `FLOAT_TYPES`; a view of the file where they are float32 already."""
        if self.dtype == "BF16":
            # bfloat16 is the upper half of float32.
            bits = self.data.view("<u2").astype(np.uint32)
            bits <<= 16
            return bits.view(np.float32).reshape(self.shape)
        values = self.values(np.dtype(np.float16 if self.dtype == "F16" else np.float32))
        return values.astype(np.float32, copy=False)


def read_safetensors(path: Path) -> tuple[dict[str, SafetensorsEntry], NDArray[np.uint8]]:
    """The tensors of a file, as views of it, and the whole mapped file. Raises ModelError."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        # mmap refuses an empty file with a ValueError.
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    whole = np.frombuffer(mapped, np.uint8)
    if len(whole) < 8:
        raise ModelError(f"{path}: cut off: {len(whole)} bytes, expected a header")
    (length,) = struct.unpack("<Q", mapped[:8])
    if length > min(_MAX_HEADER, len(whole) - 8):
        raise ModelError(
            f"{path}: claims a header of {length} bytes in a file of {len(whole)} (cut off, or not safetensors)"
        )
    try:
        header = json.loads(mapped[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: the header is not JSON: not a safetensors file") from None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: the header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        raise ModelError(f"{path}: claims {len(header)} tensors, expected at most {_MAX_TENSORS}")
    data = whole[8 + length :]
    entries = {name: _entry(path, name, entry, data) for name, entry in header.items()}
    _check_tiling(path, header, len(data))
    return entries, whole


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _entry(path: Path, name: str, entry: Any, data: NDArray[np.uint8]) -> SafetensorsEntry:
    where = f"{path}: tensor {printable(name)}"
    if not isinstance(entry, dict):
        raise ModelError(f"{where}: the header's entry is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES:
        raise ModelError(f"{where} has the type {dtype!r:.40}, expected one of {', '.join(_ITEM_SIZES)}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_size, shape)):
        raise ModelError(f"{where}: shape is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ModelError(f"{where}: data_offsets is not a pair of offsets")
    first, last = offsets
    if not first <= last <= len(data):
        raise ModelError(f"{where} lies outside the file: bytes {first} to {last} of {len(data)} (cut off?)")
    expected = _ITEM_SIZES[dtype]
    for size in shape:
        expected *= size
    if last - first != expected:
        raise ModelError(f"{where} takes {last - first} bytes, expected {expected} for {dtype} {shape}")
    return SafetensorsEntry(dtype, tuple(shape), data[first:last])


def _check_tiling(path: Path, header: dict[str, Any], size: int) -> None:
    """The format asks that tensors lie end to end, from the first byte to the last."""
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != at:
            raise ModelError(
                f"{path}: tensor {printable(name)} begins at byte {first}, expected {at} (a gap or an overlap)"
            )
        at = last
    if at != size:
        raise ModelError(f"{path}: the tensors end at byte {at} of {size}")
