"""Semantic retrieval without a model: the cosine between a text's static vector and each segment's."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from bidtrie.errors import CatalogError
from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.cells import Int32, Int64, cells
from bidtrie.retrieval.segment_vectors import segment_codes
from bidtrie.retrieval.spelling import rows_in_range
from bidtrie.retrieval.word_vectors import WordVectors, package_vectors, unit
from bidtrie.trie.array_file import Vector
from bidtrie.trie.catalog import Catalog

#: Catalogs of up to so many segments are compared whole, as float32 in memory.
EXACT = 16_384
#: In larger ones so many segments are compared, those of the cells with the most similar centres; int8, mapped.
COMPARED = 16_384
#: What counts of a query, in code points.
MAX_QUERY_LENGTH = 4_000

#: The vectors of `semantic_arrays`, in the order in which they are stored.
SEMANTIC_ARRAYS = ("codes", "scales", "order", "begin", "centres")


class SemanticRetriever(Retriever):
    """Cosine similarities, those below 0 as 0; beyond `EXACT` segments also 0 for what was not compared."""

    name: ClassVar[str] = "semantic"
    unrelated: ClassVar[float] = 0.0

    def __init__(
        self, catalog: Catalog, arrays: Mapping[str, Vector] | None = None, words: WordVectors | None = None
    ) -> None:
        """arrays: the catalog's `semantic_arrays`, where they have been made before; CatalogError if out of range."""
        self._words = package_vectors() if words is None else words
        if arrays is None:
            arrays = semantic_arrays(catalog, self._words)
        count, size = len(catalog), self._words.dimensions
        self._order: Int32 = arrays["order"]
        self._begin: Int64 = arrays["begin"]
        self._scales: Float32 = arrays["scales"]
        lengths = (len(arrays["codes"]), len(self._scales), len(self._order))
        sound = arrays["codes"].dtype == np.uint8 and lengths == (count * size, count, count)
        sound = sound and arrays["scales"].dtype == np.float32 and arrays["centres"].dtype == np.float32
        sound = sound and rows_in_range(self._begin, self._order, count)
        if not sound or len(arrays["centres"]) != (len(self._begin) - 1) * size:
            raise CatalogError("semantic index: out of range")
        self._codes = arrays["codes"].view(np.int8).reshape(count, size)
        self._centres: Float32 = arrays["centres"].reshape(-1, size)
        self._whole: Float32 | None = None
        if count <= EXACT:
            self._whole = np.empty((count, size), np.float32)
            self._whole[self._order] = self._codes * self._scales[:, None]

    def scores(self, query: str) -> Float32:
        """How well each segment fits a text: float32 [N], 0 to 1."""
        wanted = unit(self._words.sum(query[:MAX_QUERY_LENGTH]))
        if self._whole is not None:
            found: Float32 = self._whole @ wanted
            return np.maximum(found, np.float32(0), out=found)
        result = np.zeros(len(self._order), np.float32)
        if not wanted.any():
            return result
        compared = 0
        for cell in np.argsort(-(self._centres @ wanted), kind="stable").tolist():
            rows = slice(self._begin[cell], self._begin[cell + 1])
            similarity = (self._codes[rows].astype(np.float32) @ wanted) * self._scales[rows]
            result[self._order[rows]] = np.maximum(similarity, np.float32(0))
            compared += rows.stop - rows.start
            if compared >= COMPARED:
                break
        return result


def semantic_arrays(catalog: Catalog, words: WordVectors) -> dict[str, Vector]:
    """All that `SemanticRetriever` computes of a catalog beforehand, of the D dimensions of the word vectors.

    codes    uint8 [N * D], the bits of int8, segment after segment in the order of `order`
    scales   float32 [N], what makes a row of codes a vector of length 1
    order    int32 [N], which segment each row is
    begin    int64 [cells + 1], the rows of each cell (see `retrieval.cells`); one cell in catalogs of up to `EXACT`
    centres  float32 [cells * D]
    """
    codes, scales = segment_codes(catalog, words)
    if len(catalog) <= EXACT:
        order, begin = np.arange(len(catalog), dtype=np.int32), np.array([0, len(catalog)], np.int64)
        centres = np.zeros((1, words.dimensions), np.float32)
    else:
        order, begin, centres = cells(codes)
        codes, scales = codes[order], scales[order]
    return {
        "codes": codes.view(np.uint8).ravel(),
        "scales": scales,
        "order": order,
        "begin": begin,
        "centres": centres.ravel(),
    }
