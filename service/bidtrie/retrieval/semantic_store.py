"""The semantic retriever's vectors on disk, beside their catalog: `semantic.safetensors`."""

import logging
from pathlib import Path

from bidtrie.errors import CatalogError
from bidtrie.retrieval import cells, segment_vectors, semantic
from bidtrie.retrieval.semantic import SEMANTIC_ARRAYS, SemanticRetriever, semantic_arrays
from bidtrie.retrieval.word_vectors import WordVectors, package_vectors
from bidtrie.trie.array_file import expect, file_bytes, map_arrays
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.store import write_atomically

#: Changes with anything but the constants and the word vectors that changes the segments' vectors.
_FORMAT = 1

log = logging.getLogger(__name__)


def semantic_path(folder: Path) -> Path:
    """Where a catalog's vectors are."""
    return folder / "semantic.safetensors"


def load_or_build_semantic(folder: Path, catalog: Catalog) -> SemanticRetriever:
    """A catalog's retriever: over the stored vectors, mapped, if they are sound; else over new ones, then stored."""
    path, words = semantic_path(folder), package_vectors()
    if path.exists():
        try:
            metadata, arrays = map_arrays(path, SEMANTIC_ARRAYS)
            expect(path, metadata, _identity(catalog, words))
            return SemanticRetriever(catalog, arrays, words)
        except CatalogError as error:
            log.warning("the semantic retriever's index is built again: %s", error)
    arrays = semantic_arrays(catalog, words)
    try:
        write_atomically(path, file_bytes(arrays, _identity(catalog, words)))
    except OSError as error:
        log.warning("the semantic retriever's index cannot be stored: %s", error)
    return SemanticRetriever(catalog, arrays, words)


def _identity(catalog: Catalog, words: WordVectors) -> dict[str, str]:
    return {
        "format": str(_FORMAT),
        "catalog_version": catalog.version,
        "word_vectors": words.identity,
        "keyword_weight": repr(segment_vectors.KEYWORD_WEIGHT),
        "exact": repr(semantic.EXACT),
        "rows_a_cell": repr(cells.ROWS_A_CELL),
    }
