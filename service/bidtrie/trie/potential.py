"""The best score of the segments below a node, for any node, without computing it for all of them.

Counted depth first, the segments below a node are a range of positions, and siblings' ranges follow one another: the
best scores of a node's children take one pass over the scores below the node. A search that asks for the root's
children and for those of a few nodes of each level thus reads little more than all scores once.
"""

from collections.abc import Callable
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bidtrie.trie.allowed import Allowed
from bidtrie.trie.catalog import Int32
from bidtrie.trie.trie import Trie

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Tries of at most so many nodes are answered for as a whole, from the so many-th question on.
_SMALL, _QUESTIONS = 20_000, 3
# Ranges with fewer scores between them than this are reduced in one call, the scores between them too.
_GAP = 4096


class Potential:
    """`potential[nodes]`: the best score of the allowed segments below each node or at it, -inf where there is none."""

    def __init__(self, trie: Trie, scores: Float32 | Float64, allowed: Allowed | None = None) -> None:
        """scores: [N] in the order of the catalog's segments, none of them NaN; allowed: None for all."""
        self._trie = trie
        self._asked: Callable[[], Float64] | None = None
        if len(trie) <= _SMALL:
            self._asked = lambda: _every(trie, scores, allowed)
        self._questions = 0
        self._every: Float64 | None = None
        self._allowed = allowed if allowed is not None and allowed.only else None
        # One more than there are scores, so that every end of a range is an index.
        if self._allowed is not None:
            self._values = np.full(len(self._allowed.positions) + 1, -np.inf, scores.dtype)
            self._values[:-1] = scores[trie.segments_at(self._allowed.positions)]
        else:
            self._values = np.full(len(scores) + 1, -np.inf, scores.dtype)
            np.take(scores, trie.leaf_segments, out=self._values[:-1], mode="clip")
            if allowed is not None:
                self._values[allowed.positions] = -np.inf

    @overload
    def __getitem__(self, nodes: int) -> float: ...

    @overload
    def __getitem__(self, nodes: Int32 | Int64) -> Float64: ...

    def __getitem__(self, nodes: int | Int32 | Int64) -> float | Float64:
        """A float for one node, float64 [m] for m."""
        self._questions += 1
        if self._asked is not None and self._questions >= _QUESTIONS:
            self._every, self._asked = self._asked(), None
        if self._every is not None:
            return float(self._every[nodes]) if np.ndim(nodes) == 0 else self._every[nodes]
        ranges = self._trie.leaf_range(nodes)
        begin, end = self._allowed.listed(*ranges) if self._allowed is not None else ranges
        if np.ndim(nodes) == 0:
            return float(self._values[int(begin) : int(end)].max(initial=-np.inf))
        return self._best(np.asarray(begin, np.int64), np.asarray(end, np.int64))

    def _best(self, begin: Int64, end: Int64) -> Float64:
        result = np.full(len(begin), -np.inf, np.float64)
        asked = np.flatnonzero(end > begin)
        if not len(asked):
            return result
        begin, end = begin[asked], end[asked]
        if (np.diff(begin) < 0).any():
            order = np.argsort(begin, kind="stable")
            asked, begin, end = asked[order], begin[order], end[order]
        cuts = np.flatnonzero(begin[1:] - end[:-1] > _GAP) + 1
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(begin)], strict=True):
            # Of two indices that follow each other, `reduceat` takes the range between: every other one is wanted.
            base, top = int(begin[first]), int(end[first:last].max())
            ranges = np.stack([begin[first:last], end[first:last]], axis=1).ravel() - base
            result[asked[first:last]] = np.maximum.reduceat(self._values[base : top + 1], ranges)[::2]
        return result


def _every(trie: Trie, scores: Float32 | Float64, allowed: Allowed | None) -> Float64:
    """The potential of every node: float64 [n], level by level from below, where siblings follow one another."""
    result = np.full(len(trie), -np.inf)
    ends = np.flatnonzero(trie.segment >= 0)
    if allowed is not None:
        ends = ends[allowed[ends]]
    result[ends] = scores[trie.segment[ends]]
    levels = trie.levels
    for begin, end in zip(levels[-3::-1], levels[-2:0:-1], strict=True):
        first = trie.first_child[begin : end + 1]
        inner = np.flatnonzero(first[1:] > first[:-1])
        below = result[first[0] : first[-1]]
        result[begin + inner] = np.maximum.reduceat(below, first[inner] - first[0])
    return result
