"""Attention over trees, and products shared by threads, as engines outside the native one call them."""

from typing import Any

import numpy as np
import pytest
from bidtrie._native import KvTree, PackedMatrix, ThreadTeam, tree_attention
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.errors import EngineError
from kernels.matrices import FORMATS, random_matrix
from numpy.typing import NDArray

HEADS, KV_HEADS, SIZE, SLOTS = 6, 2, 32, 200


def plan_of(seed: int, prefixes: list[int], nodes: int) -> tuple[TreeBatch, tuple[NDArray[np.int32], ...]]:
    """A batch of trees on prefixes of these lengths, interleaved, and its plan."""
    rng = np.random.default_rng(seed)
    tree = KvTree(100, 128, SLOTS, 128)
    sequences = []
    for length in prefixes:
        sequences.append(tree.open(None, None))
        if length:
            chain = TreeBatch.chain([1] * length, sequences[-1])
            handles = tree.step(
                chain.tokens, chain.sequence, chain.parent, chain.logits_for, None, None, None
            )[0]
            tree.commit(sequences[-1], handles)
    owner = rng.integers(0, len(prefixes), nodes)
    parent = [int(rng.choice([-1, *np.flatnonzero(owner[:i] == owner[i])])) for i in range(nodes)]
    batch = TreeBatch.of([1] * nodes, [sequences[i] for i in owner], parent)
    return batch, tree.step(batch.tokens, batch.sequence, batch.parent, batch.logits_for, None, None, None)


def arrays(seed: int, nodes: int) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    shapes = ((nodes, HEADS, SIZE), (SLOTS, KV_HEADS, SIZE), (SLOTS, KV_HEADS, SIZE))
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def in_float64(
    queries: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    view: tuple[NDArray[Any], ...],
    scale: float,
) -> NDArray[np.float64]:
    """Node by node, head by head."""
    group, prefix_offsets, prefix, path_offsets, path = view
    out = np.zeros(queries.shape)
    for n, g in enumerate(group):
        slots = [
            *prefix[prefix_offsets[g] : prefix_offsets[g + 1]],
            *path[path_offsets[n] : path_offsets[n + 1]],
        ]
        for h in range(HEADS):
            seen = keys[slots, h * KV_HEADS // HEADS].astype(np.float64)
            scores = seen @ queries[n, h].astype(np.float64) * scale
            weights = np.exp(scores - scores.max())
            out[n, h] = weights / weights.sum() @ values[slots, h * KV_HEADS // HEADS]
    return out


@pytest.mark.parametrize("prefixes", [[0], [1, 31, 32], [70, 0, 33]])
def test_attention_is_that_of_float64(prefixes: list[int]) -> None:
    _, (_, _, _, *view) = plan_of(1, prefixes, 40)
    queries, keys, values = arrays(2, 40)
    expected = in_float64(queries, keys, values, tuple(view), 0.3)
    one = tree_attention(queries, keys, values, *view, 0.3, ThreadTeam(1))
    np.testing.assert_allclose(one, expected, rtol=0, atol=3e-6)
    for threads in (2, 3):
        np.testing.assert_array_equal(
            tree_attention(queries, keys, values, *view, 0.3, ThreadTeam(threads)), one
        )


def test_a_slot_too_many_is_seen() -> None:
    """A negative control: one node sees one slot more than it should."""
    _, (_, _, _, *view) = plan_of(1, [5, 40], 30)
    queries, keys, values = arrays(2, 30)
    expected = in_float64(queries, keys, values, tuple(view), 0.3)
    group, prefix_offsets, prefix, path_offsets, path = view
    offsets = path_offsets + (np.arange(31) > 12).astype(np.int32)
    wrong = np.insert(path, path_offsets[13], SLOTS - 1)
    out = tree_attention(
        queries, keys, values, group, prefix_offsets, prefix, offsets, wrong, 0.3, ThreadTeam(1)
    )
    differs = np.abs(out - expected).max(axis=(1, 2)) > 3e-6
    assert np.flatnonzero(differs).tolist() == [12]


def test_a_nodes_bits_depend_on_what_it_sees_alone() -> None:
    _, (_, _, _, *view) = plan_of(3, [50], 24)
    group, prefix_offsets, prefix, path_offsets, path = view
    queries, keys, values = arrays(4, 24)
    together = tree_attention(queries, keys, values, *view, 0.2, ThreadTeam(2))
    for n in range(24):
        own = path[path_offsets[n] : path_offsets[n + 1]]
        ends = np.array([0, len(own)], np.int32)
        alone = tree_attention(
            queries[n : n + 1],
            keys,
            values,
            group[n : n + 1],
            prefix_offsets,
            prefix,
            ends,
            own,
            0.2,
            ThreadTeam(1),
        )
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize(
    ("place", "change", "expected"),
    [
        (0, lambda a: a + 9, "group"),
        (0, lambda a: a[1:], "group"),
        (1, lambda a: a + 1, "prefix_offsets"),
        (2, lambda a: a - 1000, "prefix_slots"),
        (3, lambda a: a[::-1].copy(), "path_offsets"),
        (3, lambda a: np.concatenate([[0, 0], a[2:]]).astype(np.int32), "see itself"),
        (4, lambda a: a + SLOTS, "path_slots"),
    ],
)
def test_wrong_views(place: int, change: Any, expected: str) -> None:
    _, (_, _, _, *view) = plan_of(1, [5, 40], 30)
    view[place] = change(view[place])
    with pytest.raises(EngineError, match=expected):
        tree_attention(*arrays(2, 30), *view, 0.3, ThreadTeam(1))


def test_wrong_heads() -> None:
    _, (_, _, _, *view) = plan_of(1, [5], 3)
    rng = np.random.default_rng(0)

    def attend(heads: int, kv_heads: int, size: int) -> None:
        cache = rng.standard_normal((SLOTS, kv_heads, size)).astype(np.float32)
        queries = rng.standard_normal((3, heads, size)).astype(np.float32)
        tree_attention(queries, cache, cache, *view, 0.3, ThreadTeam(1))

    attend(4, 2, 16)
    with pytest.raises(EngineError, match="head_dim"):
        attend(4, 2, 24)
    with pytest.raises(EngineError, match="heads: 5"):
        attend(5, 2, 16)


@pytest.mark.parametrize("format", FORMATS)
def test_products_are_the_same_bits_for_any_team(format: str) -> None:
    """And candidates are the columns of the whole product."""
    packed: PackedMatrix = random_matrix(format, 75, 96, seed=1).packed
    rng = np.random.default_rng(2)
    x = rng.standard_normal((21, 96)).astype(np.float32)
    whole = packed.linear(x)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, 21))]).astype(np.int32)
    ids = rng.integers(0, 75, offsets[-1]).astype(np.int32)
    expected = whole[np.repeat(np.arange(21), np.diff(offsets)), ids]
    np.testing.assert_array_equal(packed.candidates(x, offsets, ids), expected)
    for threads in (2, 3):
        team = ThreadTeam(threads)
        np.testing.assert_array_equal(packed.linear(x, team=team), whole)
        np.testing.assert_array_equal(packed.candidates(x, offsets, ids, team=team), expected)


def test_wrong_candidates() -> None:
    packed = random_matrix("int4", 16, 32, seed=1).packed
    x = np.ones((2, 32), np.float32)
    for offsets, ids, expected in (
        ([0, 1], [0], "offsets"),
        ([0, 2, 1], [0, 0], "offsets"),
        ([1, 1, 2], [0, 0], "offsets"),
        ([0, 1, 2], [0, 16], "ids"),
        ([0, 1, 2], [-1, 0], "ids"),
    ):
        with pytest.raises(EngineError, match=expected):
            packed.candidates(x, np.array(offsets, np.int32), np.array(ids, np.int32))
    with pytest.raises(EngineError, match="threads"):
        ThreadTeam(0)
