"""A tiny model, a tiny catalog and a few pairs."""

from pathlib import Path

import pytest
from bidtrie.evaluation.creative import LabelledProduct
from bidtrie.evaluation.pages import Page
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import PageContext
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.tune.pairs import Pairs
from reference.tiny_models import save_tiny_model

PATHS = (
    ("Food",),
    ("Food", "Bread"),
    ("Food", "Bread", "Rye"),
    ("Food", "Tea"),
    ("Sport", "Football"),
    ("Sport", "Rowing"),
    ("Travel",),
)
_TITLES = {
    "Bread": ("crust and crumb", "the oven is hot"),
    "Rye": ("dark loaves", "sour starter"),
    "Tea": ("steep it", "leaves in a pot"),
    "Football": ("goal at last", "a penalty"),
    "Rowing": ("eight oars", "the regatta"),
    "Travel": ("a night train", "pack light"),
    "Food": ("what is for dinner", "a full table"),
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "tiny"
    save_tiny_model("llama-tied", folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Checkpoint:
    return load_checkpoint(tiny_folder)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog("tiny", [Segment(str(i), path[-1], path) for i, path in enumerate(PATHS)])


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    pages = [
        Page((path,), PageContext(title=title, description="some words", keywords=("a", "b")))
        for path in PATHS
        for title in _TITLES[path[-1]]
    ]
    products = [
        LabelledProduct(f"Firm {i}", "tea", kind, f"They sell tea number {i}.", f"Tea {i} for you")
        for i in range(4)
        for kind in ("headline", "description")
    ]
    return Pairs(tuple(pages), tuple(products))
