"""Catalogs on disk: `<home>/catalogs/NAME/`, the folder's name being the catalog's.

    catalog.json                       format, version, cattax, where it came from, counts
    segments.jsonl                     a segment a line, in order; a source of the format "jsonl" too
    index.safetensors                  where each line is, the tree of segments, and hashes of the ids
    trie-<tokenizer hash>.safetensors  first_child, token and segment (int32), memory-mapped

A catalog's version is the hash of its segments' lines, so that damage is noticed without parsing them; the other files
carry checksums of their own. Hashing all takes tenths of a second for a million segments.
"""

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from bidtrie.errors import CatalogError
from bidtrie.home import catalogs_dir
from bidtrie.trie.array_file import expect, file_bytes, map_arrays
from bidtrie.trie.catalog import VERSION_DIGITS, Catalog, Int32, check_name, segment_line
from bidtrie.trie.segment_index import INDEX_ARRAYS, StoredSegments, check_index, index_arrays
from bidtrie.trie.sources import SourceFormat, read_source
from bidtrie.trie.trie import Trie

_FORMAT = 1
_MAX_JSON_BYTES = 1 << 20
_TOKENIZER_HASH = re.compile(r"[0-9a-f]{8,64}")
_ARRAYS = ("first_child", "token", "segment")
#: Larger files are mapped: they should not take memory of their own.
_MAPPED_BYTES = 1 << 23

log = logging.getLogger(__name__)


def catalog_folder(name: str) -> Path:
    """Where the catalog of this name is, or would be."""
    return catalogs_dir() / check_name(name)


def list_catalogs() -> list[str]:
    """Names of the catalogs under home, in order."""
    folder = catalogs_dir()
    if not folder.is_dir():
        return []
    return sorted(
        each.name
        for each in folder.iterdir()
        if not each.name.startswith(".") and (each / "catalog.json").is_file()
    )


def save_catalog(catalog: Catalog, source: str) -> Path:
    """Write a catalog under home and return its folder; one of the same name is replaced as a whole, its tries too.

    One that says the same already stays as it is, with all that was prepared in it for models.

    source  says for people where it came from
    """
    target = catalog_folder(catalog.name)
    counts = Counter(len(segment.path) for segment in catalog.segments)
    described = {
        "format": _FORMAT,
        "version": catalog.version,
        "cattax": catalog.cattax,
        "source": source,
        "segments": len(catalog),
        "tiers": [counts[tier] for tier in range(1, max(counts) + 1)],
    }
    if _says_the_same(target, described):
        return target
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        fresh.mkdir(parents=True)
        try:
            lines = [f"{segment_line(segment)}\n".encode() for segment in catalog.segments]
            write_atomically(fresh / "segments.jsonl", b"".join(lines))
            index = index_arrays(catalog.segments, lines, catalog.parent)
            identity = {"format": str(_FORMAT), "version": catalog.version}
            write_atomically(fresh / "index.safetensors", file_bytes(index, identity))
            write_atomically(fresh / "catalog.json", json.dumps(described, indent=2).encode() + b"\n")
            _replace_folder(target, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise CatalogError(f"catalog {catalog.name}: cannot be written to {target}: {error}") from error
    return target


def _says_the_same(folder: Path, described: dict[str, object]) -> bool:
    try:
        same = describe_catalog(folder) == described
    except CatalogError:
        return False
    # Undamaged, and with its index.
    return same and _map_segments(folder, str(described["version"])) is not None


def load_catalog(name_or_folder: str | Path) -> Catalog:
    """Load a catalog by its name under home (str) or from a folder (Path); CatalogError if it is missing or damaged."""
    folder = name_or_folder if isinstance(name_or_folder, Path) else catalog_folder(name_or_folder)
    described = describe_catalog(folder)
    cattax = described["cattax"] if isinstance(described["cattax"], int) else None
    if (stored := _map_segments(folder, str(described["version"]))) is not None:
        segments, parent = stored
        return Catalog.of_checked(
            folder.name, segments, cattax, str(described["version"]), parent, segments.find
        )
    source = read_source(folder / "segments.jsonl", SourceFormat.JSONL)
    catalog = Catalog(folder.name, source.segments, cattax)
    if catalog.version != described["version"]:
        raise CatalogError(
            f"{folder}: segments.jsonl has the version {catalog.version}, catalog.json says "
            f"{described['version']}: damaged or replaced meanwhile, build it again"
        )
    return catalog


def _map_segments(folder: Path, version: str) -> tuple[StoredSegments, Int32] | None:
    """The segments without parsing them, and their parents; None where all has to be read to say what is wrong."""
    path = folder / "index.safetensors"
    if not path.exists():
        return None
    try:
        text = _content(folder / "segments.jsonl")
        if hashlib.sha256(text).hexdigest()[:VERSION_DIGITS] != version:
            return None
        metadata, arrays = map_arrays(path, INDEX_ARRAYS)
        expect(path, metadata, {"format": str(_FORMAT), "version": version})
        check_index(arrays, text)
    except (OSError, ValueError, CatalogError) as error:
        log.warning("all segments are read: %s", error)
        return None
    return StoredSegments(text, arrays), arrays["parent"]


def _content(path: Path) -> bytes | mmap:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= _MAPPED_BYTES:
            return file.read()
        return mmap(file.fileno(), 0, access=ACCESS_READ)


def describe_catalog(folder: Path) -> dict[str, object]:
    """What `catalog.json` says: format, version, cattax, source, segments, tiers."""
    path = folder / "catalog.json"
    if not path.is_file():
        known = ", ".join(list_catalogs()) or "none"
        raise CatalogError(f"no catalog {folder.name!r} in {folder.parent} (there: {known})")
    try:
        with path.open("rb") as file:
            described = json.loads(file.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CatalogError(f"{path}: damaged: {error}") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise CatalogError(f"{path}: expected a catalog of format {_FORMAT}; build it again")
    expected = {"version": str, "cattax": int | None, "source": str, "segments": int, "tiers": list}
    for key, kind in expected.items():
        if key not in described or not isinstance(described[key], kind):
            raise CatalogError(f"{path}: {key} is missing or of the wrong type; build it again")
    return described


def trie_path(folder: Path, tokenizer_hash: str) -> Path:
    """Where a catalog's trie for a tokenizer is."""
    if not _TOKENIZER_HASH.fullmatch(tokenizer_hash):
        raise CatalogError(f"tokenizer hash {tokenizer_hash!r}: expected 8 to 64 hexadecimal digits")
    return folder / f"trie-{tokenizer_hash}.safetensors"


def save_trie(folder: Path, trie: Trie) -> Path:
    """Write a trie into its catalog's folder."""
    metadata = {
        "format": str(_FORMAT),
        "catalog_version": trie.catalog_version,
        "tokenizer_hash": trie.tokenizer_hash,
        "terminator": str(trie.terminator),
    }
    path = trie_path(folder, trie.tokenizer_hash)
    write_atomically(path, file_bytes({name: getattr(trie, name) for name in _ARRAYS}, metadata))
    return path


def stored_tokenizers(folder: Path) -> list[str]:
    """Hashes of the tokenizers that a catalog has tries for, in order."""
    names = (
        path.name.removeprefix("trie-").removesuffix(".safetensors")
        for path in folder.glob("trie-*.safetensors")
    )
    return sorted(name for name in names if _TOKENIZER_HASH.fullmatch(name))


def load_trie(folder: Path, catalog: Catalog, tokenizer_hash: str, terminator: int | None = None) -> Trie:
    """Map a catalog's trie into memory; CatalogError if it is missing, damaged, or of other paths or tokens.

    terminator  what the paths must end in; None: whatever they were built with
    """
    path = trie_path(folder, tokenizer_hash)
    metadata, arrays = map_arrays(path, _ARRAYS)
    if terminator is None:
        try:
            terminator = int(metadata["terminator"])
        except (KeyError, ValueError) as error:
            raise CatalogError(f"{path}: cannot be read: terminator: {error}") from error
    expected = {
        "format": str(_FORMAT),
        "catalog_version": catalog.version,
        "tokenizer_hash": tokenizer_hash,
        "terminator": str(terminator),
    }
    expect(path, metadata, expected)
    return Trie(
        arrays["first_child"],
        arrays["token"],
        arrays["segment"],
        catalog.parent,
        terminator,
        tokenizer_hash,
        catalog.version,
    )


def load_or_build_trie(
    folder: Path,
    catalog: Catalog,
    encode: Callable[[str], Sequence[int]],
    terminator: int,
    tokenizer_hash: str,
) -> Trie:
    """The catalog's trie for a tokenizer: the stored one if it is sound, else built (see Trie.build) and stored."""
    path = trie_path(folder, tokenizer_hash)
    if path.exists():
        try:
            return load_trie(folder, catalog, tokenizer_hash, terminator)
        except CatalogError as error:
            log.warning("the token trie is built again: %s", error)
    trie = Trie.build(catalog, encode, terminator, tokenizer_hash)
    try:
        save_trie(folder, trie)
    except OSError as error:
        # A read-only catalog folder costs the time to build at every start, nothing else.
        log.warning("the token trie cannot be stored: %s", error)
    return trie


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in its folder and rename it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace_folder(target: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `target`. Folders cannot be replaced in one rename: the old one steps aside first."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        target.rename(aside)
    except FileNotFoundError:
        fresh.rename(target)
        return
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
