"""The lexical retriever's vectors on disk, beside their catalog: `lexical.safetensors`."""

import logging
from pathlib import Path

from bidtrie.errors import CatalogError
from bidtrie.retrieval import lexical
from bidtrie.retrieval.lexical import LEXICAL_ARRAYS, LexicalRetriever, lexical_arrays
from bidtrie.trie.array_file import expect, file_bytes, map_arrays
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.store import write_atomically

#: Changes with anything but the constants that changes the vectors: which words there are, and what they weigh.
_FORMAT = 1
_CONSTANTS = ("OWN_WEIGHT", "KEYWORD_WEIGHT", "ANCESTOR_WEIGHT", "K1", "B", "BRANCH_B")

log = logging.getLogger(__name__)


def lexical_path(folder: Path) -> Path:
    """Where a catalog's vectors are."""
    return folder / "lexical.safetensors"


def load_or_build_retriever(folder: Path, catalog: Catalog) -> LexicalRetriever:
    """A catalog's retriever: over the stored vectors, mapped, if they are sound; else over new ones, then stored."""
    path = lexical_path(folder)
    if path.exists():
        try:
            metadata, arrays = map_arrays(path, LEXICAL_ARRAYS)
            expect(path, metadata, _identity(catalog))
            return LexicalRetriever(catalog, arrays)
        except (CatalogError, UnicodeDecodeError) as error:
            log.warning("the retriever's index is built again: %s", error)
    arrays = lexical_arrays(catalog)
    try:
        write_atomically(path, file_bytes(arrays, _identity(catalog)))
    except OSError as error:
        log.warning("the retriever's index cannot be stored: %s", error)
    return LexicalRetriever(catalog, arrays)


def _identity(catalog: Catalog) -> dict[str, str]:
    constants = {name.lower(): repr(getattr(lexical, name)) for name in _CONSTANTS}
    return {"format": str(_FORMAT), "catalog_version": catalog.version, **constants}
