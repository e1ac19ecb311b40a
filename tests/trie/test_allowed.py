"""What is allowed, told without an entry a node, against the mask."""

import numpy as np
import pytest
from bidtrie.trie.allowed import Allowed
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.trie import Trie
from reference.tries import random_trie


def cases(seed: int, count: int):
    """Random shortlists and blocked segments, small and large, none and all."""
    rng = np.random.default_rng(seed)
    for most in (1, 5, count):
        for _ in range(4):
            listed = rng.integers(0, count, rng.integers(0, most + 1)).tolist()
            cut = rng.integers(0, count, rng.integers(0, most + 1)).tolist()
            yield from ((None, cut), (listed, []), (listed, cut), (list(range(count)), cut))
    yield from ((None, []), ([], []), (None, list(range(count))), ([0], [0]))


def wrong(trie: Trie, allowed: Allowed, mask: np.ndarray) -> int:
    """How many nodes are told otherwise than the mask says, by any of the ways to ask."""
    nodes = np.arange(len(trie))
    differ = allowed.nodes() != mask
    differ |= allowed[nodes.astype(np.int32)] != mask
    differ |= np.array([allowed[int(node)] for node in nodes]) != mask
    for node in nodes.tolist():
        children = np.asarray(trie.children(node), np.int32)
        told = allowed.children(node)
        assert told.dtype == np.int32
        differ[node] |= told.tolist() != children[mask[children]].tolist()
    return int(np.count_nonzero(differ))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_mask_is(seed: int) -> None:
    count = (7, 40, 150)[seed]
    trie = random_trie(seed, count).trie
    for candidates, blocked in cases(seed, count):
        mask = trie.allowed(candidates, blocked)
        allowed = trie.allow(candidates, blocked)
        assert wrong(trie, allowed, mask) == 0, (candidates, blocked)
        ends = np.flatnonzero((trie.segment >= 0) & mask)
        assert np.flatnonzero(allowed.segments()).tolist() == sorted(trie.segment[ends].tolist())
        assert len(allowed) == len(ends)


def test_the_comparison_notices_one_segment_too_many_or_too_few() -> None:
    trie = random_trie(1, 40).trie
    mask = trie.allowed([3, 7, 20], [])
    assert wrong(trie, trie.allow([3, 7], []), mask) > 0
    assert wrong(trie, trie.allow([3, 7, 20, 21], []), mask) > 0
    assert wrong(trie, trie.allow(None, [1]), trie.allowed(None, [2])) > 0


def test_what_is_below_a_blocked_segment_is_blocked_over_missing_tiers_and_in_any_order() -> None:
    paths = ["A > B > C > D", "A", "B", "A > B", "A > B > E > F > G"]
    catalog = Catalog(
        "test", [Segment(str(i), p.split(" > ")[-1], tuple(p.split(" > "))) for i, p in enumerate(paths)]
    )
    trie = Trie.build(catalog, lambda text: list(text.encode()), 10, "0" * 16)
    for blocked, left in (([1], [2]), ([3], [1, 2]), ([0], [1, 2, 3, 4]), ([1, 2], [])):
        assert np.flatnonzero(trie.allow(None, blocked).segments()).tolist() == left
        assert np.flatnonzero(trie.allow(range(5), blocked).segments()).tolist() == left


def test_a_damaged_tree_of_segments_ends() -> None:
    """Parents in a cycle cannot come from a catalog; whatever they do, it takes no time."""
    trie = random_trie(1, 10).trie
    cyclic = np.roll(np.arange(10, dtype=np.int32), 1)
    other = Trie(
        trie.first_child, trie.token, trie.segment, cyclic, trie.terminator, "0" * 16, trie.catalog_version
    )
    assert len(other.allow(None, [0])) == 0
    assert len(other.allow([5], [0])) == 0
