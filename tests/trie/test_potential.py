"""The best score below a node, against what every node's best score is when all are computed."""

import numpy as np
import pytest
from bidtrie.trie import potential as module
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.potential import Potential
from bidtrie.trie.trie import Trie
from reference.tries import random_trie

from bench.synthetic_catalog import synthetic_segments


def every_best(trie: Trie, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """From the ends of the paths upwards, level by level: float64 [nodes]."""
    best = np.full(len(trie), -np.inf, np.float64)
    ends = np.flatnonzero((trie.segment >= 0) & mask)
    best[ends] = scores[trie.segment[ends]]
    for node in range(len(trie) - 1, 0, -1):
        best[trie.parent[node]] = max(best[trie.parent[node]], best[node])
    return best


@pytest.fixture(scope="module")
def large() -> Trie:
    catalog = Catalog("large", synthetic_segments(3000))
    return Trie.build(catalog, lambda text: [1000 + hash_of(word) for word in text.split()], 10, "0" * 16)


def hash_of(word: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 1_000_003


def assert_exact(trie: Trie, seed: int, gap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GAP", gap)
    rng = np.random.default_rng(seed)
    count = len(trie.segment_parent)
    # Few different scores, negative ones too: ties and floors as a retriever makes them.
    scores = rng.integers(-3, 9, count).astype(np.float32) / np.float32(7)
    some = rng.integers(0, count, min(count, 20)).tolist()
    for candidates, blocked in (
        (None, []),
        (some, []),
        (None, some),
        (some, some[:4]),
        ([], []),
        (None, range(count)),
    ):
        expected = every_best(trie, scores, trie.allowed(candidates, blocked))
        allowed = None if candidates is None and not blocked else trie.allow(candidates, blocked)
        found = Potential(trie, scores, allowed)
        assert found[np.arange(len(trie))].tolist() == expected.tolist()
        for _ in range(20):
            nodes = rng.integers(0, len(trie), rng.integers(0, 60)).astype(np.int32)
            assert found[nodes].tolist() == expected[nodes].tolist()
        for node in rng.integers(0, len(trie), 20).tolist():
            assert found[node] == expected[node]
            children = np.asarray(trie.children(node), np.int32)
            assert found[children].tolist() == expected[children].tolist()


@pytest.mark.parametrize(("small", "gap"), [(0, 0), (0, 3), (0, 4096), (1_000_000, 0)])
def test_it_is_the_best_of_what_is_below(
    small: int, gap: int, large: Trie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    for seed in range(3):
        assert_exact(random_trie(seed, 30 + 30 * seed).trie, seed, gap, monkeypatch)
    assert_exact(large, 9, gap, monkeypatch)


@pytest.mark.parametrize("small", [0, 1_000_000])
def test_the_comparison_notices_a_wrong_score_and_a_forgotten_end(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    trie = random_trie(2, 60).trie
    scores = np.random.default_rng(0).random(60).astype(np.float32)
    every = np.ones(len(trie), np.bool_)
    nodes = np.arange(len(trie))
    changed = scores.copy()
    changed[17] += 1
    assert (Potential(trie, changed)[nodes] != every_best(trie, scores, every)).any()
    assert (Potential(trie, scores, trie.allow(None, [17]))[nodes] != every_best(trie, scores, every)).any()
