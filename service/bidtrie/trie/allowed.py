"""Which nodes of a trie lead to an allowed segment, told without an entry a node.

Counted depth first, the segments that end below a node are a range of positions (`Trie.leaf_range`). A sorted list of
positions, those of the caller's shortlist or those of the blocked segments, thus answers for any node by two binary
searches. It costs what the shortlist is long, not what the catalog is large; `Trie.allowed` gives the same as a mask.
"""

from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from bidtrie.trie.catalog import Bool, Int32

if TYPE_CHECKING:
    from bidtrie.trie.trie import Trie

Int64 = NDArray[np.int64]


class Allowed:
    """The nodes that lead to an allowed segment. `allowed[nodes]` is what the mask of `Trie.allowed` gives there.

    positions  int32, ascending, each once: positions of segments, depth first
    only       True: the segments at these positions are allowed; False: all but these
    """

    def __init__(self, trie: "Trie", positions: Int32, only: bool) -> None:
        self._trie = trie
        self.positions = positions
        self.only = only

    def __len__(self) -> int:
        """How many segments are allowed."""
        listed = len(self.positions)
        return listed if self.only else len(self._trie.segment_parent) - listed

    @overload
    def __getitem__(self, nodes: int) -> bool: ...

    @overload
    def __getitem__(self, nodes: Int32 | Int64) -> Bool: ...

    def __getitem__(self, nodes: int | Int32 | Int64) -> bool | Bool:
        """Whether nodes lead to an allowed segment: a bool for one node, bool [m] for m."""
        begin, end = self._trie.leaf_range(nodes)
        first, last = self.listed(begin, end)
        found = last > first if self.only else end - begin > last - first
        return bool(found) if np.ndim(nodes) == 0 else np.asarray(found)

    def children(self, node: int) -> Int32:
        """The allowed children of a node by ascending token id: int32."""
        children = self._trie.children(node)
        every = np.arange(children.start, children.stop, dtype=np.int32)
        first, last = self.listed(*self._trie.leaf_range(node))
        if first == last:
            return every[:0] if self.only else every
        if self.only and last - first <= len(every):
            # Siblings divide their parent's range in order: each listed position tells its child.
            begins = self._trie.leaf_range(every)[0]
            at = np.searchsorted(begins, self.positions[first:last], side="right") - 1
            return every[at[np.flatnonzero(np.diff(at, prepend=-1))]]
        allowed: Int32 = every[self[every]]
        return allowed

    def segments(self) -> Bool:
        """The allowed segments: bool [N] in the order of the catalog's segments."""
        mask = np.full(len(self._trie.segment_parent), not self.only, np.bool_)
        mask[self._trie.segments_at(self.positions)] = self.only
        return mask

    def nodes(self) -> Bool:
        """The same for every node: bool [n]."""
        return self[np.arange(len(self._trie))]

    def listed(self, begin: Int32 | int, end: Int32 | int) -> tuple[Int64, Int64]:
        """Which of `positions` lie in ranges of positions: first and last (exclusive) index of each."""
        return np.searchsorted(self.positions, begin), np.searchsorted(self.positions, end)
