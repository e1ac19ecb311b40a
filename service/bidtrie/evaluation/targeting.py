"""Accuracy and latency of rankers over labelled pages."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bidtrie.evaluation.calibration import Calibration, Choices
from bidtrie.evaluation.pages import Page
from bidtrie.evaluation.significance import Difference, wilson
from bidtrie.requests import PageContext, ScoredSegment

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranker's answer: segments, best first, and whether they were computed before this call."""

    segments: Sequence[ScoredSegment]
    cached: bool = False


#: A ranker under evaluation.
Rank = Callable[[PageContext], Ranked]

#: The shares of a tally; those of paths are null where no page names one.
TIER1_SHARES, PATH_SHARES = ("tier1_top1", "tier1_top3"), ("path_top1", "path_top5")
SHARES = TIER1_SHARES + PATH_SHARES
#: What rankers are compared by.
COMPARED = ("tier1_top1", "path_top1")
_COMPARISONS = (("both", "retriever"), ("llm", "retriever"), ("both", "embedding"))
#: Their scores are in natural-log units.
_CALIBRATED = ("llm", "both")


@dataclass(slots=True)
class Tally:
    """Hits of one ranker, page by page, so that rankers can be compared in pairs."""

    tier1_top1: list[bool] = field(default_factory=list)
    tier1_top3: list[bool] = field(default_factory=list)
    path_top1: list[bool] = field(default_factory=list)
    path_top5: list[bool] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    answers: list[Sequence[ScoredSegment]] = field(default_factory=list)
    """With `add_answer` only."""
    cached: int = 0
    """Answers that came from a cache: their latency is not the ranker's."""

    def add(self, page: Page, ranked: Sequence[Path], latency_ms: float) -> None:
        """Judge one answer. Tier 1 counts over the distinct tier-1 ancestors in the answer's order."""
        tops = list(dict.fromkeys(path[0] for path in ranked))
        right = {path[0] for path in page.expected}
        self.tier1_top1.append(bool(right & set(tops[:1])))
        self.tier1_top3.append(bool(right & set(tops[:3])))
        self.path_top1.append(any(path in page.expected for path in ranked[:1]))
        self.path_top5.append(any(path in page.expected for path in ranked[:5]))
        self.latency_ms.append(latency_ms)

    def add_answer(self, page: Page, answer: Ranked, latency_ms: float) -> None:
        """Judge one answer, and keep it."""
        self.add(page, [segment.path for segment in answer.segments], latency_ms)
        self.answers.append(answer.segments)
        self.cached += answer.cached

    def hits(self, share: str) -> list[bool]:
        """The hits behind one of `SHARES`, page by page."""
        hits: list[bool] = getattr(self, share)
        return hits

    def summary(self, *, paths: bool) -> dict[str, float | int | None]:
        """Shares between 0 and 1, with 95% intervals; path figures are null when no page names a path below tier 1."""
        result: dict[str, float | int | None] = {}
        bounds: dict[str, float | int | None] = {}
        for share in SHARES:
            hits = self.hits(share)
            known = paths or share in TIER1_SHARES
            low, high = wilson(sum(hits), len(hits)) if known else (None, None)
            result[share] = float(np.mean(hits)) if known else None
            bounds |= {f"{share}_low": low, f"{share}_high": high}
        return result | {
            "n": len(self.latency_ms),
            "latency_ms_p50": float(np.percentile(self.latency_ms, 50)),
            "latency_ms_p95": float(np.percentile(self.latency_ms, 95)),
            **bounds,
            "cached": self.cached,
        }


def evaluate(pages: Sequence[Page], rankers: dict[str, Rank]) -> Iterator[dict[str, Tally]]:
    """Ask every ranker for every page, page by page in turn, so that all meet the same machine.

    Yields the tallies so far after each page. One unmeasured warm-up call a ranker comes first.
    """
    tallies = {name: Tally() for name in rankers}
    for rank in rankers.values():
        rank(pages[0].context)
    for page in pages:
        for name, rank in rankers.items():
            begin = time.perf_counter()
            answer = rank(page.context)
            tallies[name].add_answer(page, answer, (time.perf_counter() - begin) * 1000)
        yield tallies


def compare(tallies: dict[str, Tally], *, paths: bool) -> dict[str, dict[str, Difference | None]]:
    """Pairs of rankers, as "both_vs_retriever", by each of `COMPARED`; those that are there."""
    return {
        f"{first}_vs_{second}": {
            share: Difference.of(tallies[first].hits(share), tallies[second].hits(share))
            if paths or share in TIER1_SHARES
            else None
            for share in COMPARED
        }
        for first, second in _COMPARISONS
        if first in tallies and second in tallies
    }


def either_right(tallies: dict[str, Tally], *, paths: bool) -> dict[str, float | None]:
    """The shares of pages, by each of `COMPARED`, for which the retriever's first answer or the model's is right.

    A choice between the two first answers can do no better. Empty where one of the two is missing.
    """
    if "llm" not in tallies or "retriever" not in tallies:
        return {}
    return {
        share: float(np.mean(np.logical_or(tallies["llm"].hits(share), tallies["retriever"].hits(share))))
        if paths or share in TIER1_SHARES
        else None
        for share in COMPARED
    }


def calibrate(tallies: dict[str, Tally], *, paths: bool) -> dict[str, dict[str, Calibration | None]]:
    """Of each ranker that has the model's scores: how far to trust its choice of a "tier1" topic and of a "path"."""
    found: dict[str, dict[str, Calibration | None]] = {}
    for name in _CALIBRATED:
        if name in tallies:
            tally = tallies[name]
            path = Choices.of(tally.answers, tally.path_top1, tier1=False) if paths else None
            found[name] = {
                "tier1": Calibration.of(Choices.of(tally.answers, tally.tier1_top1, tier1=True)),
                "path": None if path is None else Calibration.of(path),
            }
    return found


def has_paths(pages: Sequence[Page]) -> bool:
    """Whether any page names a path below tier 1."""
    return any(len(path) > 1 for page in pages for path in page.expected)
