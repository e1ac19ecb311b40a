"""Random catalogs with tries over a tiny vocabulary, and brute-force scores of their paths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.trie import Trie

TERMINATOR = 250


@dataclass(frozen=True)
class RandomTrie:
    """A catalog, its trie, and each segment's tokens with the terminator."""

    catalog: Catalog
    trie: Trie
    paths: list[tuple[int, ...]]


def random_trie(seed: int, segments: int, *, tokens: Sequence[int] = tuple(range(97, 109))) -> RandomTrie:
    """Paths of one to three tiers; some are token prefixes of others, chains without a choice are common."""
    rng = np.random.default_rng(seed)
    names: dict[str, tuple[int, ...]] = {}
    while len(names) < segments // 3 + 3:
        word = tuple(int(t) for t in rng.choice(tokens, size=rng.integers(1, 4)))
        names["".join(map(chr, word))] = word
    vocabulary = list(names)
    paths: dict[tuple[str, ...], None] = {}
    while len(paths) < segments:
        tier = [vocabulary[i] for i in rng.integers(0, len(vocabulary), size=rng.integers(1, 4))]
        # The tiers above are segments too, as in the taxonomies of the trade.
        for depth in range(1, len(tier) + 1):
            paths.setdefault(tuple(tier[:depth]))
    chosen = list(paths)[:segments]
    catalog = Catalog("random", [Segment(str(i), path[-1], path) for i, path in enumerate(chosen)])

    def encode(text: str) -> list[int]:
        return [token for part in text[1:].split(" > ") for token in (62, *names[part])]

    trie = Trie.build(catalog, encode, TERMINATOR, "0" * 16)
    return RandomTrie(catalog, trie, [(*encode(" " + " > ".join(path)), TERMINATOR) for path in chosen])


def brute_force(
    paths: Sequence[tuple[int, ...]],
    allowed: Sequence[int],
    log_softmax: Callable[[tuple[int, ...]], np.ndarray],
    *,
    renormalise: bool,
) -> dict[int, float]:
    """Log-probability of every allowed path, token by token, from full-vocabulary log-softmax rows after each prefix.

    With `renormalise`, each step's probabilities are over the tokens with which some allowed path goes on.
    """
    scores = {}
    for segment in allowed:
        path, total = paths[segment], 0.0
        for i, token in enumerate(path):
            row = log_softmax(path[:i])
            total += row[token]
            if renormalise:
                following = {paths[other][i] for other in allowed if paths[other][:i] == path[:i]}
                total -= np.logaddexp.reduce([row[other] for other in following])
        scores[segment] = float(total)
    return scores
