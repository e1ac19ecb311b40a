"""How branches that were left are completed."""

from collections.abc import Iterable

import numpy as np

from bidtrie.trie.found import Found
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring


def complete(
    found: dict[int, Found],
    left: Iterable[tuple[float, int, float]],
    scoring: Scoring,
    bonus: Potential | None,
) -> None:
    """Add what branches may lead to where nothing better was found of their segments.

    found  by segment
    left   of each branch the score with its best bonus, its node, and its log-probability
    """
    for score, node, log_probability in left:
        segment = int(scoring.trie.segment[likeliest_end(scoring, bonus, node)])
        if segment not in found or found[segment].score < score:
            found[segment] = Found(segment, score, log_probability)


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
