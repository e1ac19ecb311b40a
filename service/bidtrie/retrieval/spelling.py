"""Words that are spelled like an unknown word: "gardener" finds "gardening"."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SIZE = 3
_SHORTEST = 4
_CACHED_WORDS = 1 << 14


class SimilarWords:
    """Nearest words of a vocabulary by the Dice coefficient of their sets of character trigrams, ends marked.

    The measure is that of Adamson and Boreham, "The use of an association measure based on character structure"
    (1974), there with bigrams.
    """

    def __init__(self, vocabulary: Sequence[str], least: float) -> None:
        """least: similarity, between 0 and 1, below which words have nothing in common."""
        postings: dict[str, list[int]] = {}
        sizes = []
        for i, word in enumerate(vocabulary):
            grams = _grams(word)
            sizes.append(len(grams))
            for gram in grams:
                postings.setdefault(gram, []).append(i)
        self._postings = {gram: np.array(words, np.int32) for gram, words in postings.items()}
        self._sizes = np.array(sizes, np.int32)
        self._least = least
        self._cached = lru_cache(_CACHED_WORDS)(self._nearest)

    def nearest(self, word: str) -> tuple[int, float] | None:
        """The most similar word, as its index and its similarity; the first of equals; None if none is similar."""
        return self._cached(word)

    def _nearest(self, word: str) -> tuple[int, float] | None:
        if len(word) < _SHORTEST:
            return None
        grams = _grams(word)
        lists = [self._postings[gram] for gram in grams if gram in self._postings]
        if not lists:
            return None
        words: NDArray[np.int32]
        words, common = np.unique(np.concatenate(lists), return_counts=True)
        similarity = 2.0 * common / (len(grams) + self._sizes[words])
        best = int(np.argmax(similarity))
        if similarity[best] < self._least:
            return None
        return int(words[best]), float(similarity[best])


def _grams(word: str) -> set[str]:
    marked = f"^{word}$"
    return {marked[i : i + _SIZE] for i in range(len(marked) - _SIZE + 1)}
