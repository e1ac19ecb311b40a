"""What a search of a trie finds."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Found:
    """A finished path. `score` ranks; `log_probability` is the same without prior and bonus."""

    segment: int
    score: float
    log_probability: float


@dataclass(frozen=True, slots=True)
class SearchWork:
    """What a search took: branches whose children were scored, those of them that were of no use, those left out."""

    scored: int = 0
    unused: int = 0
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Best first, at most `top_k`; `partial` when the search was ended before it was done."""

    found: list[Found]
    partial: bool
    work: SearchWork = field(default=SearchWork(), compare=False)


def best(found: Iterable[Found], top_k: int) -> list[Found]:
    """The best, ties in the catalog's order."""
    return heapq.nsmallest(top_k, found, key=lambda each: (-each.score, each.segment))
