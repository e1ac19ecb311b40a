"""Lists of KV slots, node by node, as the attention kernel wants them: a list of slots a sequence, and masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SlotLists:
    """A step's `TreeLayout` with pages of one slot, on the host; R runs of nodes on end that share a prefix.

    page_table: int32 [R, longest]: a run's slots, its prefix first, then each slot that its nodes see behind it once.
    first_node: int32 [R + 1]; prefix_length, length: int32 [R].
    mask: uint32 [T, words] of the slots behind the prefix.
    """

    page_table: Int32
    first_node: Int32
    prefix_length: Int32
    length: Int32
    mask: NDArray[np.uint32]


def slot_lists(
    group: Int32, prefix_offsets: Int32, prefix_slots: Int32, path_offsets: Int32, path_slots: Int32
) -> SlotLists:
    """The arguments VIEW of `bidtrie.engine.vllm.ops`, of T nodes (at least one), by run.

    Nodes of one sequence need not lie on end: each time the sequence changes a run begins.
    """
    nodes = len(group)
    first_node = np.flatnonzero(np.r_[True, group[1:] != group[:-1], True]).astype(np.int32)
    runs = len(first_node) - 1
    run_of_node = np.repeat(np.arange(runs), np.diff(first_node))
    run_of_entry = np.repeat(run_of_node, np.diff(path_offsets))
    node_of_entry = np.repeat(np.arange(nodes), np.diff(path_offsets))
    # A slot behind the prefix of a run is a column of its masks, however many nodes see it.
    slots = int(path_slots.max()) + 1
    columns, column_of_entry = np.unique(
        run_of_entry.astype(np.int64) * slots + path_slots, return_inverse=True
    )
    behind = np.bincount(columns // slots, minlength=runs)
    first_column = np.r_[0, np.cumsum(behind)]
    bit = column_of_entry - first_column[run_of_entry]
    mask = np.zeros((nodes, -(-int(behind.max()) // 32)), np.uint32)
    np.bitwise_or.at(mask, (node_of_entry, bit // 32), np.uint32(1) << (bit % 32).astype(np.uint32))

    group_of_run = group[first_node[:-1]]
    prefix = np.diff(prefix_offsets)[group_of_run]
    length = prefix + behind
    page_table = np.zeros((runs, int(length.max())), np.int32)
    for run, sequence in enumerate(group_of_run):
        begin = prefix_offsets[sequence]
        page_table[run, : prefix[run]] = prefix_slots[begin : begin + prefix[run]]
        page_table[run, prefix[run] : length[run]] = (
            columns[first_column[run] : first_column[run + 1]] - run * slots
        )
    return SlotLists(page_table, first_node, prefix.astype(np.int32), length.astype(np.int32), mask)
