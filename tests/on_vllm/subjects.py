"""Tiny models in vLLM's workers, as the conformance suite takes engines. Weights are loaded once for all checks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from bidtrie.engine.base import Engine
from bidtrie.models.checkpoint import Checkpoint
from engine.twin import Subject
from on_vllm.folders import FOLDERS
from reference.llama import ReferenceLlama
from reference.rounding import round_to_int8

#: The folder of each subject, and how its weights are computed.
SUBJECTS: dict[str, tuple[str, str]] = {
    "vllm-llama": ("llama", "auto"),
    "vllm-groups": ("groups", "auto"),
    "vllm-groups-as-float32": ("groups", "float32"),
}
#: Other models: what they add is in the forward pass, not in the lives of nodes.
MODELS: dict[str, tuple[str, str]] = {
    **{
        f"vllm-{name}": (name, "auto")
        for name in ("llama-llama3-rope", "mistral", "qwen2", "qwen3", "groups-tied")
    },
    "vllm-groups-tied-as-float32": ("groups-tied", "float32"),
    "vllm-groups-mixed-as-float32": ("groups-mixed", "float32"),
}


@cache
def folder(name: str) -> tuple[Path, Checkpoint]:
    """A folder of `FOLDERS`, written once."""
    path = Path(tempfile.mkdtemp(prefix="bidtrie-vllm-")) / name
    return path, FOLDERS[name](path)


@cache
def workers(name: str, weights: str = "auto") -> Any:
    """Loaded once, and never shut down: an engine of a test borrows them."""
    from bidtrie.engine.vllm.workers import Workers

    path, checkpoint = folder(name)
    return Workers(
        path,
        checkpoint,
        max_nodes=256,
        threads=1,
        dequantize=weights == "float32",
    )


@cache
def _reference(name: str, rounded: bool) -> ReferenceLlama:
    return ReferenceLlama(folder(name)[1], round_to_int8 if rounded else None)


def borrowed_engine(
    name: str, weights: str = "auto", *, slots: int = 512, max_nodes: int = 256, threads: int = 1
) -> Any:
    """An engine whose shutdown leaves the workers as they are."""
    from bidtrie.engine.vllm.engine import VllmEngine

    class Borrowed(VllmEngine):
        def shutdown(self) -> None:
            self._tree = None

    return Borrowed(
        folder(name)[1], workers(name, weights), slots=slots, max_nodes=max_nodes, weights=weights
    )


@contextmanager
def an_engine(name: str, weights: str = "auto", **options: int) -> Iterator[Any]:
    engine = borrowed_engine(name, weights, **options)
    try:
        yield engine
    finally:
        engine.shutdown()


def vllm_subject(name: str) -> Subject:
    """Plain weights meet the float64 reference; coded ones one that rounds activations as the CPU's kernels do.

    As with the native engine, a code that flips moves its row by up to about what rounding costs.
    """
    folder_name, weights = (SUBJECTS | MODELS)[name]
    checkpoint = folder(folder_name)[1]

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        return borrowed_engine(folder_name, weights, slots=slots, max_nodes=max_nodes)

    coded = checkpoint.compression is not None and weights == "auto"
    model = _reference(folder_name, coded)
    if coded:
        return Subject(make, checkpoint, model, tolerance=0.3, typical=2e-4, batch_invariant=False)
    return Subject(make, checkpoint, model, tolerance=5e-5, batch_invariant=False)
