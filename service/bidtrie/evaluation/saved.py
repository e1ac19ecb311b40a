"""What each ranker answered, page by page, in a file, so that two runs can be compared.

A line is a JSON object: `page` (a digest of the context), `expected` (paths) and, by ranker under `rankers`, `ids` and
`scores` of the first five segments and the hits `tier1_top1`, `tier1_top3`, `path_top1` and `path_top5`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidtrie.errors import InvalidInput
from bidtrie.evaluation.pages import Page
from bidtrie.evaluation.significance import Difference
from bidtrie.evaluation.targeting import COMPARED, SHARES, TIER1_SHARES, Tally

_SHOWN = 5
_DIGEST_DIGITS = 16


def save(file: Path, pages: Sequence[Page], tallies: Mapping[str, Tally]) -> None:
    """Write what the rankers answered to the pages. Raises InvalidInput where the file cannot be written."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with temporary.open("w", encoding="utf-8") as lines:
            for i, page in enumerate(pages):
                rankers = {name: _answer(tally, i) for name, tally in tallies.items()}
                line = {"page": _digest(page), "expected": page.expected, "rankers": rankers}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidInput.of("--save", f"{file} cannot be written: {error.strerror}") from error


def _answer(tally: Tally, i: int) -> dict[str, Any]:
    first = tally.answers[i][:_SHOWN]
    return {
        "ids": [segment.id for segment in first],
        "scores": [segment.score for segment in first],
        **{share: tally.hits(share)[i] for share in SHARES},
    }


def _digest(page: Page) -> str:
    """The same for equal contexts."""
    context = page.context
    fields = [context.title, context.description, context.app_name, *context.keywords]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:_DIGEST_DIGITS]


@dataclass(slots=True)
class SavedRanker:
    """The best segment of each page (None: no answer), and the hits by share, page by page."""

    first: list[str | None]
    hits: dict[str, list[bool]]


@dataclass(slots=True)
class SavedRun:
    """A file that `save` wrote: n pages, each with its digest and its right paths, and the rankers that answered."""

    pages: list[tuple[str, tuple[tuple[str, ...], ...]]]
    rankers: dict[str, SavedRanker]

    @property
    def has_paths(self) -> bool:
        """Whether any page names a path below tier 1."""
        return any(len(path) > 1 for _, expected in self.pages for path in expected)


def load_saved(file: Path) -> SavedRun:
    """Read what `save` wrote. Raises InvalidInput that names the line that is wrong."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidInput.of(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput.of(str(file), f"is not UTF-8 text: {error}") from error
    run = SavedRun([], {})
    for number, line in enumerate(lines, start=1):
        try:
            _read_line(run, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            where, expected = f"{file.name}:{number}", "expected a line of `bidtrie eval targeting --save`"
            raise InvalidInput.of(where, expected) from error
    if not run.pages:
        raise InvalidInput.of(str(file), "holds no page")
    return run


def _read_line(run: SavedRun, line: dict[str, Any]) -> None:
    expected = tuple(tuple(str(tier) for tier in path) for path in line["expected"])
    answers = line["rankers"]
    if run.pages and answers.keys() != run.rankers.keys():
        raise ValueError("other rankers than before")
    run.pages.append((str(line["page"]), expected))
    for name, answer in answers.items():
        ranker = run.rankers.setdefault(name, SavedRanker([], {share: [] for share in COMPARED}))
        ids = answer["ids"]
        ranker.first.append(str(ids[0]) if ids else None)
        for share, hits in ranker.hits.items():
            if not isinstance(answer[share], bool):
                raise TypeError(share)
            hits.append(answer[share])


@dataclass(frozen=True, slots=True)
class RunDifference:
    """How a ranker did in two runs.

    share_a, share_b  of hits, between 0 and 1
    difference        of the second run less the first
    """

    share_a: float
    share_b: float
    difference: Difference

    def to_json(self) -> dict[str, float | int]:
        of = self.difference
        return {
            **{"a": self.share_a, "b": self.share_b, "difference_points": of.difference_points},
            **{"low": of.low, "high": of.high, "p": of.p, "only_a": of.only_second, "only_b": of.only_first},
        }


def compare_runs(a: SavedRun, b: SavedRun) -> dict[str, dict[str, RunDifference | None]]:
    """For each ranker of both runs, in the first one's order, by each of `COMPARED`; null where no page names a path.

    Raises InvalidInput where the runs did not answer the same pages in the same order, or have no ranker in common.
    """
    if len(a.pages) != len(b.pages):
        raise InvalidInput.of("B", f"has {len(b.pages)} pages, expected {len(a.pages)} as in A")
    for number, (one, other) in enumerate(zip(a.pages, b.pages, strict=True), start=1):
        if one != other:
            raise InvalidInput.of("B", f"line {number} is another page than in A, or has other right answers")
    common = [name for name in a.rankers if name in b.rankers]
    if not common:
        raise InvalidInput.of("B", f"has no ranker of A, expected one of {', '.join(a.rankers)}")
    n = len(a.pages)

    def difference(name: str, share: str) -> RunDifference:
        before, after = a.rankers[name].hits[share], b.rankers[name].hits[share]
        return RunDifference(sum(before) / n, sum(after) / n, Difference.of(after, before))

    return {
        name: {
            share: difference(name, share) if a.has_paths or share in TIER1_SHARES else None
            for share in COMPARED
        }
        for name in common
    }


def same_first(a: SavedRun, b: SavedRun, name: str) -> float:
    """The share of pages for which a ranker's best segment is the same in both runs."""
    pairs = zip(a.rankers[name].first, b.rankers[name].first, strict=True)
    return sum(one == other for one, other in pairs) / len(a.pages)
