"""The engines that the conformance suite runs on."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.models.checkpoint import Checkpoint
from engine.twin import Subject
from reference.llama import ReferenceLlama
from reference.reference_engine import ReferenceEngine
from reference.rounding import round_to_half, round_to_int8
from reference.tiny_models import CHECKPOINTS


@cache
def _checkpoint(name: str) -> Checkpoint:
    return CHECKPOINTS[name]()


@cache
def _model(name: str, rounded: bool = False, half: bool = False) -> ReferenceLlama:
    return ReferenceLlama(
        _checkpoint(name), round_to_int8 if rounded else None, round_to_half if half else None
    )


def reference_subject(name: str = "float32") -> Subject:
    checkpoint = _checkpoint(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        return ReferenceEngine(checkpoint, slots=slots, max_nodes=max_nodes)

    return Subject(make, checkpoint, _model(name), tolerance=1e-6)


def native_subject(name: str, **options: Any) -> Subject:
    """With float32 weights, the float64 reference is met closely.

    With quantized ones the reference rounds activations, and keys and values, as the engine does. Both round a value
    to the same code unless it lies within float error of the middle between two codes; one such flip moves the logits
    of that row, and of those that attend to it, by about what rounding costs: up to 0.13 in these models, whose logits
    spread over 1.2 to 1.6. Other rows are met within 2e-6 where keys and values are float32. In float16 some are
    rounded the other way in every context, and codes flip after them.
    """
    checkpoint = _checkpoint(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        return NativeEngine(checkpoint, slots=slots, max_nodes=max_nodes, threads=threads, **options)

    if not name.startswith("float32") and options.get("weights") != "float32":
        half = options.get("kv") != "float32"
        model = _model(name, rounded=True, half=half)
        return Subject(make, checkpoint, model, tolerance=0.3, typical=None if half else 1e-4)
    return Subject(make, checkpoint, _model(name), tolerance=2e-5)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "reference": reference_subject,
    "native-float32": partial(native_subject, "float32"),
    "native-float32-odd": partial(native_subject, "float32-odd"),
    "native-q4_1": partial(native_subject, "q4_1"),
    "native-q4_1-kv-float32": partial(native_subject, "q4_1", kv="float32"),
    "native-q4_1-odd": partial(native_subject, "q4_1-odd", kv="float32"),
    "native-groups": partial(native_subject, "groups", kv="float32"),
    "native-groups-odd": partial(native_subject, "groups-odd"),
    "native-groups-as-float32": partial(native_subject, "groups-odd", weights="float32"),
    "native-q4_1-as-float32": partial(native_subject, "q4_1-odd", weights="float32"),
    "native-portable": partial(native_subject, "q4_1-odd", kv="float32", instruction_set="portable"),
}
