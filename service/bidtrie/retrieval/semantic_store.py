"""The semantic retriever's vectors on disk, beside their catalog: `semantic.safetensors`."""

from pathlib import Path

from bidtrie.retrieval import cells, segment_vectors, semantic
from bidtrie.retrieval.index_store import load_or_build
from bidtrie.retrieval.semantic import SEMANTIC_ARRAYS, SemanticRetriever, semantic_arrays
from bidtrie.retrieval.word_vectors import WordVectors, package_vectors
from bidtrie.trie.catalog import Catalog

#: Changes with anything but the constants and the word vectors that changes the segments' vectors.
_FORMAT = 1


def semantic_path(folder: Path) -> Path:
    """Where a catalog's vectors are."""
    return folder / "semantic.safetensors"


def load_or_build_semantic(folder: Path, catalog: Catalog) -> SemanticRetriever:
    """A catalog's retriever: over the stored vectors, mapped, if they are sound; else over new ones, then stored."""
    words = package_vectors()
    return load_or_build(
        semantic_path(folder),
        SEMANTIC_ARRAYS,
        _identity(catalog, words),
        lambda: semantic_arrays(catalog, words),
        lambda arrays: SemanticRetriever(catalog, arrays, words),
        "the semantic retriever's index",
    )


def _identity(catalog: Catalog, words: WordVectors) -> dict[str, str]:
    return {
        "format": str(_FORMAT),
        "catalog_version": catalog.version,
        "word_vectors": words.identity,
        "keyword_weight": repr(segment_vectors.KEYWORD_WEIGHT),
        "exact": repr(semantic.EXACT),
        "rows_a_cell": repr(cells.ROWS_A_CELL),
    }
