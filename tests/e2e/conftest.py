"""The product as a user has it: a home folder with the default model and the IAB catalog, and a running server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bidtrie.serving.own_server import Ports, own_server
from bidtrie.settings import Settings
from e2e import product_home as folders


@pytest.fixture(scope="session")
def product_home(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path, tuned_path: Path
) -> Iterator[Path]:
    """`BIDTRIE_HOME` with both models and iab-content; the catalog's prior is computed by the server's first start."""
    with folders.product_home(tmp_path_factory.mktemp("product-home"), smollm2_path, tuned_path) as home:
        yield home


@pytest.fixture(scope="session")
def live_server(product_home: Path) -> Iterator[Ports]:
    """Ports of a real server on 127.0.0.1."""
    assert os.environ["BIDTRIE_HOME"] == str(product_home)
    with own_server(Settings().model, ["iab-content"]) as ports:
        yield ports
