"""Shortlists: the best k of what is allowed, ties in catalog order."""

from typing import ClassVar

import numpy as np
import pytest
from bidtrie.retrieval.base import Float32, Retriever


class Fixed(Retriever):
    """Gives the same scores to every text."""

    name: ClassVar[str] = "fixed"
    unrelated: ClassVar[float] = 0.0

    def __init__(self, scores: list[float]) -> None:
        self._scores = np.array(scores, np.float32)

    def scores(self, query: str) -> Float32:
        return self._scores


def test_ties_go_to_the_segment_that_comes_first() -> None:
    retriever = Fixed([1, 3, 2, 3, 2, 2, 0, -1])
    assert retriever.shortlist("", 4) == [(1, 3.0), (3, 3.0), (2, 2.0), (4, 2.0)]
    assert retriever.shortlist("", 1) == [(1, 3.0)]


@pytest.mark.parametrize("restricted", [False, True])
def test_shortlists_equal_a_stable_sort(restricted: bool) -> None:
    rng = np.random.default_rng(3)
    for count in (1, 5, 50, 500, 5000):
        scores = rng.integers(-2, 6, count).astype(np.float32)
        allowed = rng.random(count) < 0.5 if restricted else None
        retriever = Fixed(scores.tolist())
        pool = [i for i in range(count) if scores[i] > 0 and (allowed is None or allowed[i])]
        expected = [(i, float(scores[i])) for i in sorted(pool, key=lambda i: (-scores[i], i))]
        for k in (0, 1, 2, 7, 49, 1000):
            assert retriever.shortlist("", k, allowed) == expected[:k]


def test_nothing_allowed() -> None:
    assert Fixed([1, 2]).shortlist("", 3, np.zeros(2, np.bool_)) == []
