"""A home folder with two tiny models and a small catalog, and a runtime on them."""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio
from bidtrie.home import models_dir
from bidtrie.serving.runtime import Runtime
from bidtrie.settings import Settings
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.store import save_catalog
from reference.tiny_models import save_tiny_model

PATHS = [
    ("Automotive",),
    ("Automotive", "SUV"),
    ("Automotive", "Sedan"),
    ("Food",),
    ("Food", "Baking"),
    ("Food", "Baking", "Bread"),
    ("Sports",),
    ("Sports", "Football"),
]


def catalog(name: str, count: int = len(PATHS)) -> Catalog:
    segments = [Segment(f"s{i}", path[-1], path) for i, path in enumerate(PATHS[:count])]
    return Catalog(name, segments, cattax=9)


def _lengthen(config: Path) -> None:
    """Room for the creative prompt, which a byte-like tokenizer cuts into very many tokens."""
    settings = json.loads(config.read_text())
    settings["max_position_embeddings"] = 4096
    config.write_text(json.dumps(settings))


def _change_tokenizer(file: Path) -> None:
    """Two tokens change places."""
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second, *_ = vocabulary
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tokenizer))


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(folder))
        for seed, name in enumerate(("tiny-a", "tiny-b")):
            (models_dir() / name).mkdir(parents=True)
            save_tiny_model("llama", models_dir() / name, seed)
            _lengthen(models_dir() / name / "config.json")
        other = models_dir() / "tiny-other"
        other.mkdir()
        save_tiny_model("llama", other, 0)
        _change_tokenizer(other / "tokenizer.json")
        save_catalog(catalog("topics"), "test")
        save_catalog(catalog("fewer", 3), "test")
        yield folder


@pytest.fixture(scope="module")
def settings(home):
    return Settings(model="tiny-a", catalogs=("topics", "fewer"), threads=1, kv_slots=16384, admin=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(settings):
    """Shared by a module's tests: none of them changes it."""
    runtime = await asyncio.to_thread(Runtime, settings)
    yield runtime
    await runtime.close()


@pytest_asyncio.fixture(loop_scope="module")
async def changing(settings):
    """A runtime that a test may change."""
    runtime = await asyncio.to_thread(Runtime, settings)
    yield runtime
    await runtime.close()
