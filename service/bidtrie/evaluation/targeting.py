"""Accuracy and latency of rankers over labelled pages."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bidtrie.evaluation.pages import Page
from bidtrie.requests import PageContext

Path = tuple[str, ...]
#: A ranker under evaluation: the best paths for a context, best first.
RankPaths = Callable[[PageContext], Sequence[Path]]


@dataclass(slots=True)
class Tally:
    """Hits of one ranker, page by page, so that rankers can be compared in pairs."""

    tier1_top1: list[bool] = field(default_factory=list)
    tier1_top3: list[bool] = field(default_factory=list)
    path_top1: list[bool] = field(default_factory=list)
    path_top5: list[bool] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)

    def add(self, page: Page, ranked: Sequence[Path], latency_ms: float) -> None:
        """Judge one answer. Tier 1 counts over the distinct tier-1 ancestors in the answer's order."""
        tops = list(dict.fromkeys(path[0] for path in ranked))
        right = {path[0] for path in page.expected}
        self.tier1_top1.append(bool(right & set(tops[:1])))
        self.tier1_top3.append(bool(right & set(tops[:3])))
        self.path_top1.append(any(path in page.expected for path in ranked[:1]))
        self.path_top5.append(any(path in page.expected for path in ranked[:5]))
        self.latency_ms.append(latency_ms)

    def summary(self, *, paths: bool) -> dict[str, float | int | None]:
        """Shares between 0 and 1; path figures are null when no page names a path below tier 1."""
        return {
            "tier1_top1": float(np.mean(self.tier1_top1)),
            "tier1_top3": float(np.mean(self.tier1_top3)),
            "path_top1": float(np.mean(self.path_top1)) if paths else None,
            "path_top5": float(np.mean(self.path_top5)) if paths else None,
            "n": len(self.latency_ms),
            "latency_ms_p50": float(np.percentile(self.latency_ms, 50)),
            "latency_ms_p95": float(np.percentile(self.latency_ms, 95)),
        }


def evaluate(pages: Sequence[Page], rankers: dict[str, RankPaths]) -> Iterator[dict[str, Tally]]:
    """Ask every ranker for every page, page by page in turn, so that all meet the same machine.

    Yields the tallies so far after each page. One unmeasured warm-up call a ranker comes first.
    """
    tallies = {name: Tally() for name in rankers}
    for rank in rankers.values():
        rank(pages[0].context)
    for page in pages:
        for name, rank in rankers.items():
            begin = time.perf_counter()
            ranked = rank(page.context)
            tallies[name].add(page, ranked, (time.perf_counter() - begin) * 1000)
        yield tallies


def has_paths(pages: Sequence[Page]) -> bool:
    """Whether any page names a path below tier 1."""
    return any(len(path) > 1 for page in pages for path in page.expected)
