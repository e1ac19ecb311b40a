"""A retriever's index beside its catalog: taken from its file if that is sound, else made and stored."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bidtrie.errors import CatalogError
from bidtrie.trie.array_file import Vector, expect, file_bytes, map_arrays
from bidtrie.trie.store import write_atomically

R = TypeVar("R")

log = logging.getLogger(__name__)


def load_or_build(
    path: Path,
    names: tuple[str, ...],
    identity: dict[str, str],
    arrays: Callable[[], dict[str, Vector]],
    retriever: Callable[[Mapping[str, Vector]], R],
    what: str,
) -> R:
    """The retriever over the arrays of a file, mapped, if they are sound; else over new ones, which are stored.

    identity   what the file has to be of
    retriever  raises CatalogError or UnicodeDecodeError for arrays that are not sound
    what       the index's name in warnings
    """
    if path.exists():
        try:
            metadata, stored = map_arrays(path, names)
            expect(path, metadata, identity)
            return retriever(stored)
        except (CatalogError, UnicodeDecodeError) as error:
            log.warning("%s is built again: %s", what, error)
    made = arrays()
    try:
        write_atomically(path, file_bytes(made, identity))
    except OSError as error:
        log.warning("%s cannot be stored: %s", what, error)
    return retriever(made)
