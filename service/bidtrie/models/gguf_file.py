"""The GGUF container: header, metadata and tensor directory, every byte checked before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3, little-endian. The `gguf` package's
own reader is not used here: it trusts the file's counts and takes seconds for a vocabulary of 49,152 tokens.
"""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.fields import printable

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_MAX_ENTRIES = 1 << 16
_MAX_ARRAY = 1 << 23


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the file: logical shape with the fastest-running dimension last, and its bytes."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A parsed file. The tensors' bytes are views of `mapped`, the whole file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry]
    mapped: NDArray[np.uint8]


class _Cursor:
    """Reads little-endian values off the mapped file and never past its end."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path, self.view, self.at, self.size = path, view, 0, len(view)

    def fail(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what} (at byte {self.at} of {self.size})")

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.fail(f"cut off in {what}: {count} bytes wanted, {self.size - self.at} left")
        self.at += count
        return self.view[self.at - count : self.at]

    def unpack(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.unpack("Q", what), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            return self.array(what)
        if kind not in _SCALARS:
            raise self.fail(f"{what} has the unknown value type {kind}")
        value = self.unpack(_SCALARS[kind], what)
        return bool(value) if kind == _BOOL else value

    def array(self, what: str) -> list[Any]:
        kind, count = self.unpack("I", what), self.unpack("Q", what)
        if count > _MAX_ARRAY:
            raise self.fail(f"{what} claims {count} elements, expected at most {_MAX_ARRAY}")
        if kind == _STRING:
            return [self.string(what) for _ in range(count)]
        if kind not in _SCALARS:
            raise self.fail(f"{what} is a list of the unsupported value type {kind}")
        code = _SCALARS[kind]
        raw = self.take(count * struct.calcsize(f"<{code}"), what)
        values = list(struct.unpack(f"<{count}{code}", raw))
        return [bool(value) for value in values] if kind == _BOOL else values


def read_gguf(path: Path) -> GGUFFile:
    """Map a GGUF file and check its whole structure. Raises ModelError, also for files that cannot be read."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        # mmap refuses an empty file with a ValueError.
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    cursor = _Cursor(path, mapped)
    if cursor.take(min(4, cursor.size), "the magic") != b"GGUF":
        raise ModelError(f"{path}: is not a GGUF file (it does not begin with 'GGUF')")
    version = cursor.unpack("I", "the version")
    if version not in (2, 3):
        raise ModelError(f"{path}: GGUF version {version} is not supported, expected 2 or 3 (little-endian)")
    tensor_count, entry_count = (
        cursor.unpack("Q", "the tensor count"),
        cursor.unpack("Q", "the metadata count"),
    )
    for count, what in [(tensor_count, "tensors"), (entry_count, "metadata entries")]:
        if count > _MAX_ENTRIES:
            raise ModelError(f"{path}: claims {count} {what}, expected at most {_MAX_ENTRIES}")
    metadata = _metadata(cursor, entry_count)
    entries = [_entry(cursor) for _ in range(tensor_count)]
    whole = np.frombuffer(mapped, np.uint8)
    return GGUFFile(path, metadata, _tensors(cursor, metadata, entries, whole), whole)


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise cursor.fail(f"metadata key {printable(key)} appears twice")
        metadata[key] = cursor.value(
            cursor.unpack("I", f"metadata {printable(key)}"), f"metadata {printable(key)}"
        )
    return metadata


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (fastest-running dimension last), type number and offset of one tensor."""
    name = cursor.string("a tensor's name")
    what = f"the directory entry of tensor {printable(name)}"
    dimensions = cursor.unpack("I", what)
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise cursor.fail(
            f"tensor {printable(name)} has {dimensions} dimensions, expected 1 to {_MAX_DIMENSIONS}"
        )
    shape = tuple(cursor.unpack("Q", what) for _ in range(dimensions))[::-1]
    return name, shape, cursor.unpack("I", what), cursor.unpack("Q", what)


def _tensors(
    cursor: _Cursor,
    metadata: dict[str, Any],
    entries: list[tuple[str, tuple[int, ...], int, int]],
    whole: NDArray[np.uint8],
) -> dict[str, TensorEntry]:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise ModelError(f"{cursor.path}: general.alignment is {alignment!r}, expected a power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorEntry] = {}
    extents: list[tuple[int, int, str]] = []
    for name, shape, number, offset in entries:
        where = f"{cursor.path}: tensor {printable(name)}"
        if name in tensors:
            raise ModelError(f"{where} appears twice")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise ModelError(f"{where} has the unknown type {number}") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if any(size < 1 for size in shape) or shape[-1] % block:
            raise ModelError(
                f"{where} has shape {list(shape)}, expected rows of a multiple of {block} elements"
            )
        count = 1
        for size in shape:
            count *= size
        size_in_bytes, first = count // block * block_bytes, start + offset
        if offset % alignment:
            raise ModelError(f"{where} begins at offset {offset}, expected a multiple of {alignment}")
        if first + size_in_bytes > len(whole):
            raise ModelError(
                f"{where} lies outside the file: bytes {first} to {first + size_in_bytes} of {len(whole)} (cut off?)"
            )
        tensors[name] = TensorEntry(kind, shape, whole[first : first + size_in_bytes])
        extents.append((first, first + size_in_bytes, name))
    extents.sort()
    for (_, end, one), (first, _, other) in pairwise(extents):
        if first < end:
            raise ModelError(f"{cursor.path}: tensors {printable(one)} and {printable(other)} overlap")
    return tensors
