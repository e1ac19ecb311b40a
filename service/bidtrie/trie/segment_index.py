"""Where each segment stands in `segments.jsonl`: large catalogs are not parsed when they are loaded.

Segments stay lines of text until one is asked for (some microseconds each), ids are found by their hashes. Per segment
the index takes 24 bytes, all of them mapped from `index.safetensors`:

    line_end    int64 [N], where each line ends, its newline included
    parent      int32 [N], the catalog's tree of segments (`Catalog.parent`)
    id_hash     uint64 [N], BLAKE2b of the ids, ascending
    id_segment  int32 [N], whose hash that is
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError
from bidtrie.trie.array_file import Vector
from bidtrie.trie.catalog import MAX_TIERS, Int32, Segment

INDEX_ARRAYS = ("line_end", "parent", "id_hash", "id_segment")


def index_arrays(segments: Sequence[Segment], lines: Sequence[bytes], parent: Int32) -> dict[str, Vector]:
    """The index of segments that are written as these lines, each with its newline."""
    hashes = np.array([_hash(segment.id) for segment in segments], np.uint64)
    order = np.argsort(hashes, kind="stable")
    return {
        "line_end": np.cumsum([len(line) for line in lines], dtype=np.int64),
        "parent": parent,
        "id_hash": hashes[order],
        "id_segment": order.astype(np.int32),
    }


def check_index(arrays: dict[str, Vector], text: bytes | mmap) -> None:
    """Raise CatalogError unless every line and every index is in range and the parents form a forest."""

    def require(condition: bool | np.bool_, what: str) -> None:
        if not condition:
            raise CatalogError(f"segment index: {what}")

    line_end, parent = arrays["line_end"], arrays["parent"]
    count = len(line_end)
    types = {"line_end": np.int64, "parent": np.int32, "id_hash": np.uint64, "id_segment": np.int32}
    require(
        count > 0 and all(arrays[n].dtype == t and len(arrays[n]) == count for n, t in types.items()),
        "expected vectors of one length",
    )
    require(
        line_end[0] > 0 and line_end[-1] == len(text) and np.diff(line_end).min(initial=1) > 0,
        "lines out of range",
    )
    require((np.frombuffer(text, np.uint8)[line_end - 1] == 0x0A).all(), "a line that ends in no newline")
    require(parent.min() >= -1 and parent.max() < count, "parents out of range")
    require((arrays["id_hash"][1:] >= arrays["id_hash"][:-1]).all(), "hashes are not in order")
    at = arrays["id_segment"]
    require(at.min() >= 0 and at.max() < count, "segments out of range")
    require(bool((np.bincount(at, minlength=count) == 1).all()), "a segment that is missing")
    above = parent[parent >= 0]
    for _ in range(MAX_TIERS):
        if not len(above):
            return
        above = parent[above]
        above = above[above >= 0]
    require(False, "a cycle of parents, or more tiers than a path may have")


class StoredSegments(Sequence[Segment]):
    """The segments of a catalog on disk, each made when it is asked for."""

    def __init__(self, text: bytes | mmap, arrays: dict[str, Vector]) -> None:
        """text: the content of `segments.jsonl`; arrays: its index, checked by `check_index`."""
        self._text = text
        self._line_end: NDArray[np.int64] = arrays["line_end"]
        self._id_hash: NDArray[np.uint64] = arrays["id_hash"]
        self._id_segment: Int32 = arrays["id_segment"]

    def __len__(self) -> int:
        return len(self._line_end)

    @overload
    def __getitem__(self, i: int) -> Segment: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[Segment, ...]: ...

    def __getitem__(self, i: int | slice) -> Segment | tuple[Segment, ...]:
        if isinstance(i, slice):
            return tuple(self[each] for each in range(*i.indices(len(self))))
        i = range(len(self))[i]
        return self._parse(int(self._line_end[i - 1]) if i else 0, int(self._line_end[i]))

    def __iter__(self) -> Iterator[Segment]:
        begin = 0
        for i in range(0, len(self), 4096):
            for end in self._line_end[i : i + 4096].tolist():
                yield self._parse(begin, end)
                begin = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]

    def find(self, id: str) -> int | None:
        """The position of the segment with this id."""
        key = np.uint64(_hash(id))
        # Ids of equal hashes stand side by side.
        at = int(np.searchsorted(self._id_hash, key))
        while at < len(self) and self._id_hash[at] == key:
            segment = int(self._id_segment[at])
            if self[segment].id == id:
                return segment
            at += 1
        return None

    def _parse(self, begin: int, end: int) -> Segment:
        # The file's hash is that of lines that `segment_line` wrote; only a forged file fails here.
        try:
            record = json.loads(self._text[begin:end])
            path = tuple(record["path"])
            keywords = tuple(record.get("keywords", ()))
            return Segment(record["id"], path[-1], path, keywords, record.get("sensitive", False))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise CatalogError(f"segments.jsonl: no segment at byte {begin:,}: {error}") from error


def _same(one: Segment, other: object) -> bool:
    return one == other


def _hash(id: str) -> int:
    # Ids of requests may hold lone surrogates: they are looked for like any other and not found.
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
