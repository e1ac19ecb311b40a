"""A model on its engine."""

from dataclasses import dataclass

from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint on an engine. Until a batcher takes the engine, it belongs to whoever loaded it."""

    checkpoint: Checkpoint
    engine: Engine
    threads: int
    instruction_set: str


def load_model(settings: Settings) -> LoadedModel:
    """Read the checkpoint of the settings and put it on the native engine."""
    checkpoint = load_checkpoint(settings.model)
    engine = NativeEngine(
        checkpoint,
        threads=settings.threads,
        slots=settings.kv_slots,
        max_nodes=settings.max_step_nodes,
        weights=settings.weights,
        kv=settings.kv,
        instruction_set=settings.instruction_set,
    )
    return LoadedModel(checkpoint, engine, engine.threads, engine.instruction_set)
