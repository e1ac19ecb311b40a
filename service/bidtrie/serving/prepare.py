"""Prepares a catalog for a model ahead of serving: `bidtrie catalog build --model`."""

from collections.abc import Callable
from pathlib import Path

from bidtrie.scheduling.job import run_alone
from bidtrie.serving.loaded_catalog import load_prepared
from bidtrie.serving.loaded_model import load_model
from bidtrie.settings import Settings


def prepare_catalog(catalog_dir: Path, model: str, progress: Callable[[float], None]) -> None:
    """Build and store the trie and the prior of a catalog for a model; `progress` gets the share done, 0 to 1."""
    loaded = load_model(Settings(model=model, max_step_nodes=256))
    try:
        engine = loaded.engine
        load_prepared(
            catalog_dir, loaded.checkpoint.tokenizer, engine, lambda job: run_alone(engine, job), progress
        )
    finally:
        loaded.engine.shutdown()
