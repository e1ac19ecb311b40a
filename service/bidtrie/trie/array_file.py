"""Numpy vectors in a safetensors file with a checksum, mapped into memory instead of copied."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bidtrie.errors import CatalogError

Vector = NDArray[Any]

_DTYPES: dict[str, type[np.generic]] = {
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U64": np.uint64,
    "F32": np.float32,
}


def file_bytes(arrays: Mapping[str, Vector], metadata: Mapping[str, str]) -> bytes:
    """The content of a file of these vectors; a checksum over them, in their order, joins the metadata."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(whole, {**metadata, "checksum": _checksum(whole)})


def map_arrays(path: Path, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Vector]]:
    """A file's metadata and the named vectors, mapped read-only and compared with their checksum.

    The checksum finds accidents, not forgery: whoever uses the vectors as indices checks their range. Hashing takes
    about half a second a gigabyte. Raises CatalogError if the file cannot be read or is damaged.
    """
    try:
        # The library checks the header: types, shapes, and that the offsets cover the file without gaps.
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(length))
        arrays = {name: _map(path, 8 + length, name, header[name]) for name in names}
    except KeyError as error:
        raise CatalogError(
            f"{path}: cannot be read: holds no {error}, expected {', '.join(names)}"
        ) from error
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    if metadata.get("checksum") != _checksum(arrays):
        raise CatalogError(f"{path}: damaged: the checksum does not match")
    return metadata, arrays


def expect(path: Path, metadata: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise CatalogError unless the metadata has the expected values."""
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise CatalogError(f"{path}: {key} is {metadata.get(key)}, expected {value}")


def _map(path: Path, base: int, name: str, entry: dict[str, Any]) -> Vector:
    if entry["dtype"] not in _DTYPES or len(entry["shape"]) != 1:
        raise ValueError(f"{name}: expected a vector of {', '.join(_DTYPES)}")
    dtype = _DTYPES[entry["dtype"]]
    if not entry["shape"][0]:
        # Nothing cannot be mapped.
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", base + entry["data_offsets"][0], tuple(entry["shape"])))


def _checksum(arrays: Mapping[str, Vector]) -> str:
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.data)
    return digest.hexdigest()
