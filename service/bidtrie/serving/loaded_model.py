"""A model on its engine."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bidtrie.engine.arguments import usable_cores
from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.errors import InvalidInput, ModelError, Violation
from bidtrie.models.adapter import is_adapter
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.models.names import model_path
from bidtrie.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint on an engine. Until a batcher takes the engine, it belongs to whoever loaded it."""

    checkpoint: Checkpoint
    engine: Engine
    threads: int
    instruction_set: str


def load_model(settings: Settings) -> LoadedModel:
    """Read the checkpoint of the settings and put it on their engine. Raises ModelError, or InvalidInput by setting."""
    check_engine(settings)
    if settings.engine == "vllm":
        return _on_vllm(settings)
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


def check_engine(settings: Settings) -> None:
    """Raise InvalidInput where settings do not go with the engine, or the engine is not installed."""
    wrong: list[Violation] = []
    if settings.engine == "vllm":
        if find_spec("vllm") is None:
            wrong.append(Violation("engine", "vllm is not installed: see docs/vllm.md"))
        if settings.kv != "auto":
            wrong.append(Violation("kv", "the vllm engine keeps keys and values as it computes them: auto"))
        if settings.instruction_set is not None:
            wrong.append(Violation("instruction_set", "the vllm engine chooses its kernels itself: unset"))
    elif settings.tensor_parallel != 1:
        wrong.append(Violation("tensor_parallel", "the native engine runs on one machine's CPU: 1"))
    if wrong:
        raise InvalidInput(wrong)


def _on_vllm(settings: Settings) -> LoadedModel:
    path = model_path(settings.model) or Path(settings.model).expanduser()
    if not path.is_dir() or is_adapter(path):
        what = "a LoRA adapter" if path.is_dir() else "not a folder"
        raise ModelError(
            f"{settings.model}: is {what}, expected a Hugging Face directory or an artefact for the vllm engine"
        )
    # Read as the native engine reads it: the tokenizer, the configuration, and everything checked.
    checkpoint = load_checkpoint(settings.model)

    from bidtrie.engine.vllm.engine import VllmEngine
    from bidtrie.engine.vllm.workers import Workers

    threads = settings.threads or usable_cores()
    workers = Workers(
        path,
        checkpoint,
        max_nodes=settings.max_step_nodes,
        threads=threads,
        tensor_parallel=settings.tensor_parallel,
        launcher=settings.tensor_parallel_launcher,
        dequantize=settings.weights == "float32",
    )
    try:
        engine = VllmEngine(
            checkpoint,
            workers,
            slots=settings.kv_slots,
            max_nodes=settings.max_step_nodes,
            weights=settings.weights,
        )
    except BaseException:
        workers.shutdown()
        raise
    return LoadedModel(checkpoint, engine, threads, engine.device)
