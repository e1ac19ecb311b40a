"""Short texts as sparse vectors: words and the character trigrams of words, hashed and weighted by TF-IDF.

Words tell what a keyword is about; trigrams bring together what is spelled alike, inflections and compounds.
Hashing features instead of numbering them is that of Weinberger et al., "Feature Hashing for Large Scale Multitask
Learning" (arXiv 0902.2206), here without signs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bidtrie.retrieval.words import words

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

COLUMNS = 1 << 16
#: What a word's trigrams weigh together, beside the word's 1.
_TRIGRAMS_WEIGHT = 0.5


@dataclass(frozen=True)
class Rows:
    """Vectors of length 1 in compressed sparse rows; a text without words is a row without entries.

    begin   int64 [rows + 1]
    column  int64, 0 to `COLUMNS` - 1; one may come several times in a row
    weight  float32
    """

    begin: Int64
    column: Int64
    weight: Float32

    def __len__(self) -> int:
        return len(self.begin) - 1

    def take(self, rows: Int64) -> "Rows":
        """Some of the rows, in the given order."""
        counts = self.begin[rows + 1] - self.begin[rows]
        begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        at = np.repeat(self.begin[rows] - begin[:-1], counts) + np.arange(begin[-1])
        return Rows(begin, self.column[at], self.weight[at])

    def row_of_entries(self) -> Int64:
        """Which row each entry belongs to: int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.begin))


def text_vectors(texts: Sequence[str]) -> Rows:
    """A vector for each text."""
    features: dict[str, tuple[list[int], list[float]]] = {}
    column: list[int] = []
    frequency: list[float] = []
    counts = []
    for text in texts:
        before = len(column)
        # A word that is repeated says nothing new.
        for word in dict.fromkeys(words(text)):
            if (found := features.get(word)) is None:
                found = features[word] = _features(word)
            column += found[0]
            frequency += found[1]
        counts.append(len(column) - before)
    begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    columns = np.array(column, np.int64)
    weight = np.array(frequency, np.float64)
    weight *= np.log((1 + len(texts)) / (1 + np.bincount(columns, minlength=COLUMNS)))[columns] + 1
    row = np.repeat(np.arange(len(texts)), counts)
    # Entries of one column add up: the length is that of the sums.
    pair, at = np.unique(row * COLUMNS + columns, return_inverse=True)
    sums = np.bincount(at, weight, minlength=len(pair))
    lengths = np.sqrt(np.bincount(pair // COLUMNS, sums**2, minlength=len(texts)))
    return Rows(begin, columns, (weight / lengths[row]).astype(np.float32))


def _features(word: str) -> tuple[list[int], list[float]]:
    marked = f"^{word}$"
    grams = [marked[i : i + 3] for i in range(len(marked) - 2)]
    columns = [crc32(f"word {word}".encode()) % COLUMNS]
    columns += [crc32(f"gram {gram}".encode()) % COLUMNS for gram in grams]
    return columns, [1.0] + [_TRIGRAMS_WEIGHT / np.sqrt(len(grams))] * len(grams)
