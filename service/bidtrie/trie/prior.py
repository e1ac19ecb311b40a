"""The prior: what the model thinks of every path when the context says nothing.

Stored per node: the mean over the neutral contexts of the full-softmax log-probability of the node's token after
its parent. Within one node's children that is the mean neutral logit up to a constant, so that renormalising over any
subset of the children (blocked segments, the caller's candidates) gives the trie-normalised prior of that subset.

Large catalogs have a prior of their first `PRIOR_NODES` nodes only, breadth first and in whole groups of siblings: the
model would take hours for millions of nodes. What lies below (`prior_covers` says where that begins) counts as 0:
under trie-normalised scores a node's children are then all alike, so that the correction goes by how many they are and
never by which they are; under vocabulary-normalised ones nothing is subtracted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, Float32, TreeBatch, kept_parent
from bidtrie.scheduling.job import Job
from bidtrie.trie.trie import Trie

#: Nodes a step: enough for the kernels, and room in the step for requests when a catalog is loaded while serving.
PRIOR_STEP_NODES = 64
#: How many nodes, breadth first, have a prior: minutes of computation.
PRIOR_NODES = 200_000


def prior_covers(trie: Trie) -> int:
    """How many nodes, breadth first, have a prior: a node is below this number if and only if its siblings are.

    The children of the root always have one.
    """
    if len(trie) <= PRIOR_NODES:
        return len(trie)
    # Every entry of first_child is where a group of siblings begins.
    last = int(np.searchsorted(trie.first_child, PRIOR_NODES, side="right")) - 1
    return int(trie.first_child[max(last, 1)])


def neutral_log_probabilities(
    engine: Engine,
    trie: Trie,
    prompt: list[int],
    prefix: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Job[Float32]:
    """Full-softmax log-probability of every node's token after its parent, after one prompt: float32 [covered], root 0.

    Covered are the first `prior_covers(trie)` nodes: all of them unless the trie is large. `progress` is called with
    the share of them that is done. Walks the trie depth first, so that only the ancestors of the nodes still to come
    are kept.
    """
    covered = prior_covers(trie)
    sequence = engine.open(share=prefix)
    try:
        size = min(PRIOR_STEP_NODES, engine.spec.max_nodes)
        for first in range(0, len(prompt) - 1, size):
            output = yield TreeBatch.chain(prompt[first : min(first + size, len(prompt) - 1)], sequence)
            engine.commit(sequence, output.nodes.tolist())
        result = np.zeros(covered, np.float32)
        inner = _preorder_of_inner_nodes(trie, covered)
        kept: dict[int, int] = {}
        # The prompt's last token stands for the root; its node is the parent of the first tier.
        for first in range(0, len(inner), size):
            progress(first / len(inner))
            nodes = inner[first : first + size]
            index = {int(node): i for i, node in enumerate(nodes)}
            parent = []
            for node in nodes.tolist():
                above = int(trie.parent[node])
                if node == 0:
                    parent.append(PREFIX_END)
                else:
                    parent.append(index[above] if above in index else kept_parent(kept[above]))
            tokens = [prompt[-1] if node == 0 else int(trie.token[node]) for node in nodes.tolist()]
            children = [np.asarray(trie.children(node)) for node in nodes.tolist()]
            candidates = Candidates.of([trie.token[each] for each in children])
            rows = range(len(nodes))
            output = yield TreeBatch.of(tokens, sequence, parent, list(rows), candidates, logsumexp=True)
            for row, each in zip(rows, children, strict=True):
                result[each] = output.row(row) - output.logsumexp[row]
            # Preorder: what follows can only hang on the ancestors of the next node.
            above = int(trie.parent[inner[first + size]]) if first + size < len(inner) else -1
            needed = set()
            while above >= 0:
                needed.add(above)
                above = int(trie.parent[above])
            fresh = [node for node in needed if node in index]
            engine.keep([int(output.nodes[index[node]]) for node in fresh])
            engine.release([handle for node, handle in kept.items() if node not in needed])
            kept = {node: handle for node, handle in kept.items() if node in needed}
            kept |= {node: int(output.nodes[index[node]]) for node in fresh}
        return result
    finally:
        engine.close(sequence)


def _preorder_of_inner_nodes(trie: Trie, covered: int) -> NDArray[np.int32]:
    """Nodes that have children below `covered`, every one after its parent and before its next sibling."""
    order = []
    stack = [0]
    while stack:
        node = stack.pop()
        children = trie.children(node)
        if children and children.start < covered:
            order.append(node)
            stack.extend(reversed(children))
    return np.array(order, np.int32)
