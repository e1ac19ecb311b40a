"""How much the score of a prefix can still rise: what best-first search goes by.

A finished path's score is that of a prefix plus what its last tokens add. Log-probabilities add nothing; taking off the
prior can add as much as the prior takes, and a retriever's score comes on top.
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.tree_batch import Float32, Int32
from bidtrie.trie.allowed import Allowed
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring, renormalised
from bidtrie.trie.trie import Trie

Float64 = NDArray[np.float64]

#: See `LikelyBound`.
GAIN_A_LOG_LEAF = 0.375
PATIENCE, _STAIR = 96, 8


class Bound(Protocol):
    """What is at most added to the score of each node by the end of a path below it."""

    def __call__(self, nodes: Int32) -> tuple[Float64, Float64]:
        """For m nodes what is sure and what is likely, float64 [m] each, to be added up."""
        ...

    def trust(self, scored: int) -> float:
        """The share of what is likely that still counts when so many branches were scored."""
        ...


class ExactBound:
    """Proven: no path below a node can do better, so that the best paths found are the best there are.

    The largest gain is that of a path on which the model is certain of every token: its bonus, and `prior_weight` times
    what the prior takes off between the node and its end. Looks at every node of the trie once.
    """

    def __init__(self, scoring: Scoring, bonus: Float32 | None) -> None:
        """bonus: float32 [N], by segment."""
        trie, weight = scoring.trie, scoring.prior_weight
        best = np.zeros(len(trie.segment_parent)) if bonus is None else bonus.astype(np.float64)
        self._taken: Float64 | None = None
        if weight and scoring.prior is not None:
            self._taken = weight * cumulative_prior(trie, scoring.prior, scoring.allowed, fold=scoring.fold)
            ends = np.flatnonzero(trie.segment >= 0)
            taken = self._taken[ends]
            best[trie.segment[ends]] -= np.where(np.isfinite(taken), taken, 0.0)
        self._best = Potential(trie, best, scoring.allowed)

    def __call__(self, nodes: Int32) -> tuple[Float64, Float64]:
        best = self._best[nodes]
        return best if self._taken is None else best + self._taken[nodes], np.zeros(len(nodes))

    def trust(self, scored: int) -> float:
        return 1.0


class LikelyBound:
    """What a path below a node is likely to gain at most: the best bonus there, and a margin for the model's part.

    The gain over a node of the best path below it, measured on 100 titles and the 704 paths of IAB's Content Taxonomy
    with SmolLM2-135M (prior weight 0.8), is 0.2 on average below nodes with two segments and 0.8 below those with 17 to
    40, with standard deviations of 0.4 and 1.0. The bound is the prior's weight times (0.375 times the log of the
    number of segments below, and `margin`). Without a prior nothing is gained, and the bound is exact.

    So that a large catalog does not make a search long, the margin shrinks in stairs with the branches that were
    scored; after PATIENCE of them only a branch that is better as it stands goes on.
    """

    def __init__(self, scoring: Scoring, bonus: Potential | None, margin: float) -> None:
        self._trie, self._weight = scoring.trie, scoring.prior_weight
        self._bonus, self._margin = bonus, margin

    def __call__(self, nodes: Int32) -> tuple[Float64, Float64]:
        bonus = np.zeros(len(nodes)) if self._bonus is None else self._bonus[nodes]
        if not self._weight:
            return bonus, np.zeros(len(nodes))
        first, last = self._trie.leaf_range(nodes)
        return bonus, self._weight * (GAIN_A_LOG_LEAF * np.log(last - first) + self._margin)

    def trust(self, scored: int) -> float:
        return max(0.0, 1.0 - scored // _STAIR * _STAIR / PATIENCE)


def cumulative_prior(trie: Trie, prior: Float32, allowed: Allowed | None, *, fold: bool) -> Float64:
    """The prior's log-probability of the path down to each node: float64 [n]; -inf where nothing is allowed."""
    values = prior.astype(np.float64)
    values[0] = 0.0
    if allowed is not None:
        values[~allowed.nodes()] = -np.inf
    levels = trie.levels
    if fold:
        counts = np.diff(trie.first_child).astype(np.int64)
        counts = counts[counts > 0]
        with np.errstate(invalid="ignore"):  # groups of which nothing is allowed
            values[1:] = renormalised(values[1:], counts)
        values[np.isnan(values)] = -np.inf
    for begin, end in pairwise(levels[1:]):
        values[begin:end] += values[trie.parent[begin:end]]
    return values
