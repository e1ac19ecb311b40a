"""Scores of a node's children, from the logits that the engine gave for them.

Trie-normalised scores are log-probabilities renormalised over the allowed children. Vocabulary-normalised scores are
full-softmax log-probabilities. Prior correction subtracts `prior_weight` times the same score under neutral contexts
(domain-conditional PMI; Holtzman et al. 2021, "Surface Form Competition", arXiv 2104.08315), renormalised over the same
children.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.tree_batch import Float32, Int32, StepOutput
from bidtrie.trie.allowed import Allowed
from bidtrie.trie.trie import Trie

Float64 = NDArray[np.float64]


class Scoring:
    """Scores of children, and which children there are."""

    def __init__(
        self, trie: Trie, allowed: Allowed | None, prior: Float32 | None, prior_weight: float, *, fold: bool
    ) -> None:
        """fold: trie-normalised. prior: as `search` takes it; ValueError if it is missing though it has a weight."""
        if prior_weight and prior is None:
            raise ValueError("prior_weight needs a prior")
        self.trie = trie
        self.allowed = allowed
        self.prior = prior
        self.prior_weight = prior_weight
        self.fold = fold

    def children(self, node: int) -> Int32:
        """The allowed children of a node, by ascending token id."""
        if self.allowed is not None:
            return self.allowed.children(node)
        children = self.trie.children(node)
        return np.arange(children.start, children.stop, dtype=np.int32)

    def segments_below(self, nodes: Int32) -> NDArray[np.int64]:
        """How many allowed segments end below each node or at it: int64 [m]."""
        begin, end = self.trie.leaf_range(nodes)
        if self.allowed is None:
            return (end - begin).astype(np.int64)
        first, last = self.allowed.listed(begin, end)
        return last - first if self.allowed.only else (end - begin) - (last - first)

    def rows(self, output: StepOutput, children: Sequence[Int32]) -> tuple[Float64, Float64]:
        """Log-probabilities of all rows' children, row after row, and what they add to the score.

        children: for each row of the output, in order, the nodes whose tokens were its candidates.
        """
        counts = np.array([len(nodes) for nodes in children])
        probabilities = output.logits.astype(np.float64)
        if self.fold:
            probabilities = renormalised(probabilities, counts)
        else:
            probabilities -= np.repeat(output.logsumexp.astype(np.float64), counts)
        if not self.prior_weight:
            return probabilities, probabilities
        neutral = self.neutral(np.concatenate(children), counts)
        return probabilities, probabilities - self.prior_weight * neutral

    def neutral(self, nodes: Int32, counts: NDArray[np.int64]) -> Float64:
        """The same log-probabilities under neutral contexts; without a prior all children are alike."""
        if self.prior is None:
            return -np.log(np.repeat(counts, counts))
        neutral = self.prior[nodes].astype(np.float64)
        return renormalised(neutral, counts) if self.fold else neutral


def renormalised(values: Float64, counts: NDArray[np.int64]) -> Float64:
    """Log-probabilities of groups, one after another, of `counts` values each (none empty): each group sums to 1."""
    begins = np.cumsum(counts) - counts
    largest = np.repeat(np.maximum.reduceat(values, begins), counts)
    values = values - largest
    result: Float64 = values - np.repeat(np.log(np.add.reduceat(np.exp(values), begins)), counts)
    return result
