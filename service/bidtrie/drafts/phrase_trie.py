"""The phrase trie: what followed the last few tokens in texts that were seen before.

A trie over reversed contexts (the last token first, up to `MOST_CONTEXT` of them), kept as one sorted array: the
places where a text held a context are a range of it, and those of a longer context a range inside that. It takes 16
bytes a token, whatever the depth.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

#: Most tokens of a context, and the largest vocabulary: with it keys of three tokens take 63 bits.
MOST_CONTEXT, MOST_VOCABULARY = 3, (1 << 21) - 2
#: Most continuations told of a context.
MOST_CHILDREN = 4
#: Contexts whose continuations are remembered.
_MEMO = 4096

#: The longest context that was found, in tokens, and what followed it: tokens with their shares, likeliest first.
Following = tuple[int, tuple[tuple[int, float], ...]]


class PhraseTrie:
    """Counts of token n-grams, asked by context. Not changed after it is built; one thread at a time asks it."""

    def __init__(self, texts: Iterable[tuple[Sequence[int], float]], vocabulary: int) -> None:
        """`texts` are tokens and weights; a text that begins with `start(vocabulary)` is whole, others are pieces.

        A text's weight counts for each of its n-grams.
        """
        end = vocabulary + 1
        self.vocabulary = vocabulary
        self._base = base = vocabulary + 2
        chains: list[int] = [end, end]
        weights: list[float] = [0.0, 0.0]
        for tokens, weight in texts:
            chains += tokens
            chains.append(end)
            weights += [weight] * (len(tokens) + 1)
        ids = np.array(chains, np.int64)
        keys = (ids[2:-1] * base + ids[1:-2]) * base + ids[:-3]
        inside = ids[2:-1] != end
        order = np.flatnonzero(inside)
        order = order[np.argsort(keys[order], kind="stable")]
        # Asked for single numbers, a memoryview is several times as fast as an array.
        self._keys: memoryview[int] = keys[order].data
        self._next = ids[3:][order].astype(np.int32)
        self._weights = np.array(weights, np.float32)[2:-1][order]
        self._memo: dict[tuple[int, int], tuple[tuple[int, float], ...]] = {}

    def __len__(self) -> int:
        """Places that are known: tokens with what followed them."""
        return len(self._next)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self._keys.nbytes + self._next.nbytes + self._weights.nbytes

    def following(self, context: Sequence[int]) -> Following | None:
        """What followed the longest end of `context` (its last `MOST_CONTEXT` tokens count) that is known.

        Shares are of all places, those where a text ended included: they sum to at most 1. None: even the last token
        is unknown.
        """
        keys, base = self._keys, self._base
        size = min(len(context), MOST_CONTEXT)
        key = context[-1]
        low, high = bisect_left(keys, key * base * base), bisect_left(keys, (key + 1) * base * base)
        if low == high:
            return None
        length = 1
        while length < size:
            key = key * base + context[-1 - length]
            unit = base if length == 1 else 1
            first = bisect_left(keys, key * unit, low, high)
            last = bisect_left(keys, (key + 1) * unit, first, high)
            if first == last:
                break
            low, high, length = first, last, length + 1
        if high - low == 1:
            token = int(self._next[low])
            return (length, ((token, 1.0),)) if token < self.vocabulary else (length, ())
        found = self._memo.get((low, high))
        if found is None:
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            found = self._memo[low, high] = self._children(low, high)
        return length, found

    def _children(self, low: int, high: int) -> tuple[tuple[int, float], ...]:
        tokens, places = np.unique(self._next[low:high], return_inverse=True)
        weights = np.bincount(places, self._weights[low:high], len(tokens))
        total = float(weights.sum())
        likeliest = np.argsort(-weights, kind="stable").tolist()
        return tuple(
            (int(tokens[i]), float(weights[i]) / total)
            for i in likeliest[: MOST_CHILDREN + 1]
            if tokens[i] < self.vocabulary and weights[i] > 0
        )[:MOST_CHILDREN]


def start(vocabulary: int) -> int:
    """The token that stands for a text's beginning."""
    return vocabulary


def context_of(path: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    """The context at the end of a text whose tokens are `path`."""
    if len(path) >= MOST_CONTEXT:
        return tuple(path[-MOST_CONTEXT:])
    return (start(vocabulary), *path)
