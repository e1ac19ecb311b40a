"""A catalog: a tree of segments, in a fixed order, with a version that follows from its content."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError

Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

#: Between the tiers of a path, in texts for people, in plain sources and in what the model reads.
SEPARATOR = " > "

#: What a catalog may hold. Lengths are in Unicode code points.
MAX_SEGMENTS = 1_000_000
MAX_TIERS = 16
MAX_ID_LENGTH = 128
MAX_TIER_LENGTH = 200
MAX_KEYWORDS = 100
MAX_KEYWORD_LENGTH = 200

#: How many hexadecimal digits of the SHA-256 of its segments' lines are a catalog's version.
VERSION_DIGITS = 16

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
# Control characters, lone surrogates, line and paragraph separators: no name has them, and some would break a prompt.
_FORBIDDEN_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))


@dataclass(frozen=True, slots=True)
class Segment:
    """What can be returned for a context.

    id         unique in its catalog
    name       the last tier of the path
    path       names from the top tier down to the segment itself
    keywords   further words that describe it; retrieval reads them, the model does not
    sensitive  the taxonomy marks it as sensitive content ("SCD" in IAB's Content Taxonomy)
    """

    id: str
    name: str
    path: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    sensitive: bool = False


class Catalog:
    """Segments in order, and the tree that their paths form.

    Raises CatalogError if the name, a segment, or the segments together are not what a catalog may hold.
    """

    def __init__(self, name: str, segments: Iterable[Segment], cattax: int | None = None) -> None:
        """cattax: the taxonomy's number in OpenRTB ("List: Category Taxonomies" of AdCOM), None if it has none."""
        self.name = check_name(name)
        self.cattax = cattax
        self.segments: Sequence[Segment] = tuple(segments)
        if not self.segments:
            raise CatalogError(f"catalog {name}: no segments")
        if len(self.segments) > MAX_SEGMENTS:
            raise CatalogError(
                f"catalog {name}: {len(self.segments):,} segments, at most {MAX_SEGMENTS:,} are allowed"
            )
        for number, segment in enumerate(self.segments, 1):
            if problem := segment_problem(segment):
                raise CatalogError(f"catalog {name}: segment {number}: {problem}")
        index = {segment.id: i for i, segment in enumerate(self.segments)}
        self._find: Callable[[str], int | None] = index.get
        if len(index) != len(self.segments):
            raise CatalogError(
                f"catalog {name}: two segments have the id {_repeated(s.id for s in self.segments)!r}"
            )
        texts = {SEPARATOR.join(segment.path) for segment in self.segments}
        if len(texts) != len(self.segments):
            repeated = _repeated(SEPARATOR.join(segment.path) for segment in self.segments)
            raise CatalogError(f"catalog {name}: two segments have the path {repeated!r}")
        self.version = content_hash(self.segments)
        self.parent = _parents(self.segments)

    @classmethod
    def of_checked(
        cls,
        name: str,
        segments: Sequence[Segment],
        cattax: int | None,
        version: str,
        parent: Int32,
        find: Callable[[str], int | None],
    ) -> "Catalog":
        """A catalog whose segments were checked when they were stored. find: the position of an id, if it has one."""
        catalog = cls.__new__(cls)
        catalog.name = check_name(name)
        catalog.cattax = cattax
        catalog.segments = segments
        catalog.version = version
        catalog.parent = parent
        catalog._find = find
        return catalog

    def __len__(self) -> int:
        return len(self.segments)

    def __repr__(self) -> str:
        return f"Catalog({self.name!r}, {len(self):,} segments, version {self.version})"

    def find(self, id: str) -> int | None:
        """The position of a segment; None if there is none with this id. Some microseconds in a stored catalog."""
        return self._find(id)

    def index(self, id: str) -> int:
        """The position of a segment; KeyError if there is none with this id."""
        found = self._find(id)
        if found is None:
            raise KeyError(id)
        return found

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) is not None

    def path_text(self, i: int) -> str:
        """The path of a segment as one text."""
        return SEPARATOR.join(self.segments[i].path)

    def descendants(self, i: int) -> Int32:
        """The segments below a segment and itself, in order: int32."""
        mask = np.zeros(len(self), np.bool_)
        mask[i] = True
        return np.flatnonzero(with_descendants(mask, self.parent)).astype(np.int32)

    @cached_property
    def tier1(self) -> tuple[str, ...]:
        """The names of the top tier, in order of first appearance."""
        return tuple(dict.fromkeys(segment.path[0] for segment in self.segments))


def check_name(name: str) -> str:
    """A catalog's name as given; CatalogError unless it is 1 to 64 of a-z, 0-9, '-' and '_'."""
    if not _NAME.fullmatch(name):
        raise CatalogError(f"catalog name {name!r}: expected 1 to 64 of a-z, 0-9, '-' and '_'")
    return name


def with_descendants(mask: Bool, parent: Int32) -> Bool:
    """The segments of a mask and all below them. mask: bool [N]; parent: int32 [N], -1 for none."""
    below = parent >= 0
    result = mask.copy()
    # One pass a tier: a segment's fate is known once its parent's is.
    while True:
        grown = result | (below & result[parent])
        if np.array_equal(grown, result):
            return result
        result = grown


def content_hash(segments: Sequence[Segment]) -> str:
    """16 hexadecimal digits that change with any segment or their order: the hash of the lines that are stored."""
    digest = hashlib.sha256()
    for segment in segments:
        digest.update(segment_line(segment).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:VERSION_DIGITS]


def segment_line(segment: Segment) -> str:
    """A segment as one line of JSON: what is stored, and what the version is computed from."""
    record: dict[str, object] = {"id": segment.id, "path": segment.path}
    if segment.keywords:
        record["keywords"] = segment.keywords
    if segment.sensitive:
        record["sensitive"] = True
    return _JSON.encode(record)


def normal_text(text: str) -> str:
    """Text as catalogs hold it: Unicode NFC, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def text_problem(what: str, text: str, longest: int) -> str | None:
    """What is wrong with a text that should be normal and printable, or None."""
    if not text:
        return f"empty {what}"
    if len(text) > longest:
        return f"{what} of {len(text):,} characters, at most {longest:,} are allowed"
    if text.isprintable():
        # No character of the forbidden categories is printable: most texts need not be looked at one by one.
        return None
    for character in text:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
            return f"{what} holds the character U+{ord(character):04X}"
    return None


def segment_problem(segment: Segment) -> str | None:
    """The first thing that is wrong with a segment on its own, or None."""
    if problem := text_problem("id", segment.id, MAX_ID_LENGTH):
        return problem
    if not segment.path:
        return "empty path"
    if len(segment.path) > MAX_TIERS:
        return f"path of {len(segment.path)} tiers, at most {MAX_TIERS} are allowed"
    for tier, name in enumerate(segment.path, 1):
        if problem := text_problem(f"name at tier {tier}", name, MAX_TIER_LENGTH):
            return problem
        if SEPARATOR in name:
            return f"name at tier {tier} holds the separator {SEPARATOR!r}: {name!r}"
        if name != normal_text(name):
            return f"name at tier {tier} is not normalised: {name!r}"
    if segment.name != segment.path[-1]:
        return f"name {segment.name!r} is not the last tier of the path, {segment.path[-1]!r}"
    if len(segment.keywords) > MAX_KEYWORDS:
        return f"{len(segment.keywords)} keywords, at most {MAX_KEYWORDS} are allowed"
    for keyword in segment.keywords:
        if problem := text_problem("keyword", keyword, MAX_KEYWORD_LENGTH):
            return problem
    return None


def _repeated(values: Iterable[str]) -> str:
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    raise AssertionError("called for values that repeat")


def _parents(segments: Sequence[Segment]) -> Int32:
    """For each segment the one above it: the longest shorter path that is itself a segment, else -1."""
    at = {segment.path: i for i, segment in enumerate(segments)}
    parent = []
    for segment in segments:
        above = -1
        for tiers in range(len(segment.path) - 1, 0, -1):
            found = at.get(segment.path[:tiers])
            if found is not None:
                above = found
                break
        parent.append(above)
    return np.array(parent, np.int32)
