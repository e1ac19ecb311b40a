"""The lexical retriever's vectors on disk, beside their catalog: `lexical.safetensors`."""

from pathlib import Path

from bidtrie.retrieval import lexical
from bidtrie.retrieval.index_store import load_or_build
from bidtrie.retrieval.lexical import LEXICAL_ARRAYS, LexicalRetriever, lexical_arrays
from bidtrie.trie.catalog import Catalog

#: Changes with anything but the constants that changes the vectors: which words there are, and what they weigh.
_FORMAT = 1
_CONSTANTS = ("OWN_WEIGHT", "KEYWORD_WEIGHT", "ANCESTOR_WEIGHT", "K1", "B", "BRANCH_B")


def lexical_path(folder: Path) -> Path:
    """Where a catalog's vectors are."""
    return folder / "lexical.safetensors"


def load_or_build_retriever(folder: Path, catalog: Catalog) -> LexicalRetriever:
    """A catalog's retriever: over the stored vectors, mapped, if they are sound; else over new ones, then stored."""
    return load_or_build(
        lexical_path(folder),
        LEXICAL_ARRAYS,
        _identity(catalog),
        lambda: lexical_arrays(catalog),
        lambda arrays: LexicalRetriever(catalog, arrays),
        "the retriever's index",
    )


def _identity(catalog: Catalog) -> dict[str, str]:
    constants = {name.lower(): repr(getattr(lexical, name)) for name in _CONSTANTS}
    return {"format": str(_FORMAT), "catalog_version": catalog.version, **constants}
