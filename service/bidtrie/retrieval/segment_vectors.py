"""A vector for every segment, of its name, its path and its keywords, in int8."""

import numpy as np
from numpy.typing import NDArray

from bidtrie.retrieval.base import Float32
from bidtrie.retrieval.word_vectors import WordVectors, quantized, unit
from bidtrie.trie.catalog import Catalog, Segment

#: Beside the name and the path, which count 1 each. Not measured: the catalogs at hand have no keywords.
KEYWORD_WEIGHT = 0.5
_AT_ONCE = 4_096


def segment_codes(catalog: Catalog, words: WordVectors) -> tuple[NDArray[np.int8], Float32]:
    """Unit vectors of a catalog's segments: int8 [N, D] and their scales, float32 [N].

    The direction of unit(path) + unit(name) + KEYWORD_WEIGHT * unit(keywords), where a path's vector is the sum over
    its tiers. The name is in both: it says more than what is above it, and alone it is ambiguous.
    """
    codes = np.zeros((len(catalog), words.dimensions), np.int8)
    scales = np.zeros(len(catalog), np.float32)
    above: dict[tuple[str, ...], Float32] = {(): np.zeros(words.dimensions, np.float32)}
    for begin in range(0, len(catalog), _AT_ONCE):
        part = [catalog.segments[i] for i in range(begin, min(begin + _AT_ONCE, len(catalog)))]
        rows = slice(begin, begin + len(part))
        codes[rows], scales[rows] = quantized(unit(_vectors(part, words, above)))
    return codes, scales


def _vectors(part: list[Segment], words: WordVectors, above: dict[tuple[str, ...], Float32]) -> Float32:
    names = words.sums([segment.name for segment in part])
    paths = names + np.stack([_above(segment.path[:-1], words, above) for segment in part])
    keywords = words.sums([", ".join(segment.keywords) for segment in part])
    return unit(paths) + unit(names) + np.float32(KEYWORD_WEIGHT) * unit(keywords)


def _above(path: tuple[str, ...], words: WordVectors, known: dict[tuple[str, ...], Float32]) -> Float32:
    """The sum over the tiers of a path, which come again and again."""
    if (found := known.get(path)) is None:
        found = known[path] = _above(path[:-1], words, known) + words.sum(path[-1])
    return found
