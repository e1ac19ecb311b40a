"""Words that are spelled like an unknown word: "gardener" finds "gardening"."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError
from bidtrie.trie.array_file import Vector

_SIZE = 3
_SHORTEST = 4
_CACHED_WORDS = 1 << 14


class SimilarWords:
    """Nearest words of a vocabulary by the Dice coefficient of their sets of character trigrams, ends marked.

    The measure is that of Adamson and Boreham, "The use of an association measure based on character structure"
    (1974), there with bigrams.
    """

    def __init__(self, count: int, arrays: Mapping[str, Vector], least: float) -> None:
        """Over a vocabulary of `count` words with its `spelling_arrays`.

        least  similarity, between 0 and 1, below which words have nothing in common
        """
        self._begin: NDArray[np.int64] = arrays["gram_begin"]
        self._words: NDArray[np.int32] = arrays["gram_words"]
        self._sizes: NDArray[np.int32] = arrays["gram_counts"]
        grams = bytes(arrays["grams"]).decode().split("\n") if len(arrays["grams"]) else []
        require = (len(self._begin) == len(grams) + 1, len(self._sizes) == count)
        if not all(require) or not rows_in_range(self._begin, self._words, count):
            raise CatalogError("spelling index: out of range")
        self._count = count
        self._grams = {gram: i for i, gram in enumerate(grams)}
        self._least = least
        self._cached = lru_cache(_CACHED_WORDS)(self._nearest)

    def nearest(self, word: str) -> tuple[int, float] | None:
        """The most similar word, as its index and its similarity; the first of equals; None if none is similar."""
        return self._cached(word)

    def _nearest(self, word: str) -> tuple[int, float] | None:
        if len(word) < _SHORTEST:
            return None
        grams = _grams(word)
        rows = [self._grams[gram] for gram in grams if gram in self._grams]
        if not rows:
            return None
        lists = [self._words[self._begin[row] : self._begin[row + 1]] for row in rows]
        counts = np.bincount(np.concatenate(lists), minlength=self._count)
        words = np.flatnonzero(counts)
        common = counts[words]
        similarity = 2.0 * common / (len(grams) + self._sizes[words])
        best = int(np.argmax(similarity))
        if similarity[best] < self._least:
            return None
        return int(words[best]), float(similarity[best])


def spelling_arrays(vocabulary: Sequence[str]) -> dict[str, Vector]:
    """What `SimilarWords` needs of a vocabulary, in compressed sparse rows by trigram.

    grams        uint8, the distinct trigrams in UTF-8, a newline between two
    gram_begin   int64 [grams + 1], where each trigram's words begin
    gram_words   int32, the words that hold it, ascending
    gram_counts  int32 [words], how many distinct trigrams a word has
    """
    rows: dict[str, int] = {}
    row: list[int] = []
    sizes = []
    for word in vocabulary:
        grams = _grams(word)
        sizes.append(len(grams))
        row += [rows.setdefault(gram, len(rows)) for gram in grams]
    counts = np.array(sizes, np.int32)
    at = np.array(row, np.int64)
    order = np.argsort(at, kind="stable")
    return {
        "grams": np.frombuffer("\n".join(rows).encode(), np.uint8),
        "gram_begin": np.concatenate([[0], np.cumsum(np.bincount(at, minlength=len(rows)))]).astype(np.int64),
        "gram_words": np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order],
        "gram_counts": counts,
    }


def rows_in_range(begin: NDArray[np.int64], values: NDArray[np.int32], below: int) -> bool:
    """Whether compressed sparse rows are what they should be: begin int64 [rows + 1], values 0 to `below` - 1."""
    rows = begin.dtype == np.int64 and begin[0] == 0 and begin[-1] == len(values)
    if not rows or values.dtype != np.int32 or (begin[1:] < begin[:-1]).any():
        return False
    return not len(values) or bool(values.min() >= 0 and values.max() < below)


def _grams(word: str) -> set[str]:
    marked = f"^{word}$"
    return {marked[i : i + _SIZE] for i in range(len(marked) - _SIZE + 1)}
