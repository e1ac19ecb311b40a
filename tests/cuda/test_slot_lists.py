"""Lists of slots node by node, as lists by run and masks: every node must see the slots that it saw."""

import numpy as np
import pytest
from bidtrie.cuda.slot_lists import Int32, SlotLists, slot_lists

View = tuple[Int32, Int32, Int32, Int32, Int32]


def random_view(seed: int, nodes: int, groups: int, *, on_end: bool) -> View:
    """Prefixes of 0 to 40 slots; paths through ancestors of earlier steps; up to `nodes` slots behind each prefix."""
    rng = np.random.default_rng(seed)
    slots = rng.permutation(4096)
    prefixes = np.split(slots[: 40 * groups], groups)
    prefixes = [prefix[: rng.integers(0, 41)] for prefix in prefixes]
    trees = np.split(slots[40 * groups : 40 * groups + nodes * groups], groups)
    group = rng.integers(0, groups, nodes)
    if on_end:
        group.sort()
    paths = [rng.choice(trees[g], rng.integers(1, nodes + 1), replace=False) for g in group]
    return (
        group.astype(np.int32),
        np.cumsum([0, *map(len, prefixes)]).astype(np.int32),
        np.concatenate(prefixes).astype(np.int32),
        np.cumsum([0, *map(len, paths)]).astype(np.int32),
        np.concatenate(paths).astype(np.int32),
    )


def seen(lists: SlotLists, node: int) -> list[int]:
    """The slots of a node, those behind the prefix in ascending order."""
    run = int(np.searchsorted(lists.first_node, node, "right")) - 1
    prefix, length = lists.prefix_length[run], lists.length[run]
    bits = [i for i in range(32 * lists.mask.shape[1]) if lists.mask[node, i // 32] >> np.uint32(i % 32) & 1]
    assert all(bit < length - prefix for bit in bits)
    behind = sorted(int(lists.page_table[run, prefix + bit]) for bit in bits)
    return [*map(int, lists.page_table[run, :prefix]), *behind]


def expected(view: View, node: int) -> list[int]:
    group, prefix_offsets, prefix, path_offsets, path = view
    g = group[node]
    behind = sorted(map(int, path[path_offsets[node] : path_offsets[node + 1]]))
    return [*map(int, prefix[prefix_offsets[g] : prefix_offsets[g + 1]]), *behind]


@pytest.mark.parametrize("on_end", [True, False])
@pytest.mark.parametrize(("nodes", "groups"), [(1, 1), (40, 1), (33, 4), (70, 3)])
def test_a_node_sees_its_slots_and_no_others(nodes: int, groups: int, on_end: bool) -> None:
    for seed in range(5):
        view = random_view(seed, nodes, groups, on_end=on_end)
        lists = slot_lists(*view)
        assert [seen(lists, node) for node in range(nodes)] == [expected(view, node) for node in range(nodes)]
        if on_end:
            assert len(lists.length) == len(set(view[0])), "nodes of a sequence on end are one run"


def test_another_mask_is_seen() -> None:
    """A negative control."""
    view = random_view(1, 20, 2, on_end=True)
    lists = slot_lists(*view)
    lists.mask[7, 0] ^= np.uint32(1)
    assert seen(lists, 7) != expected(view, 7)
