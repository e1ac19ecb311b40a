"""How a branch that was left is completed."""

import numpy as np

from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring


def likeliest_end(scoring: Scoring, bonus: Potential | None, node: int) -> int:
    """The end of the path below a node that the bonus prefers, then the shorter one, then the likelier a priori."""
    trie, prior = scoring.trie, scoring.prior
    while trie.segment[node] < 0:
        children = scoring.children(node)
        if len(children) > 1:
            ends = trie.segment[children] >= 0
            likely = np.zeros(len(children)) if prior is None else prior[children]
            extra = np.zeros(len(children)) if bonus is None else bonus[children]
            children = children[np.lexsort((likely, ends, extra))[-1:]]
        node = int(children[0])
    return node
