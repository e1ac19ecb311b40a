"""The engines that the conformance suite runs on."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.models.checkpoint import Checkpoint
from engine.twin import Subject
from reference.activation_rounding import round_to_int8
from reference.llama import ReferenceLlama
from reference.reference_engine import ReferenceEngine
from reference.tiny_models import CHECKPOINTS


@cache
def _checkpoint(name: str) -> Checkpoint:
    return CHECKPOINTS[name]()


@cache
def _model(name: str, rounded: bool = False) -> ReferenceLlama:
    return ReferenceLlama(_checkpoint(name), round_to_int8 if rounded else None)


def reference_subject(name: str = "float32") -> Subject:
    checkpoint = _checkpoint(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        return ReferenceEngine(checkpoint, slots=slots, max_nodes=max_nodes)

    return Subject(make, checkpoint, _model(name), tolerance=1e-6)


def native_subject(name: str, **options: Any) -> Subject:
    """With float32 weights, the float64 reference is met closely.

    With quantized ones the reference rounds activations as the engine does. Both round a value to the same code
    unless it lies within float error of the middle between two codes; one such flip moves the logits of that row,
    and of those that attend to it, by about what rounding costs: up to 0.13 in these models, whose logits spread over
    1.2 to 1.6. Other rows are met within 2e-6.
    """
    checkpoint = _checkpoint(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        return NativeEngine(checkpoint, slots=slots, max_nodes=max_nodes, threads=threads, **options)

    if name.startswith("q4_1") and options.get("weights") != "float32":
        return Subject(make, checkpoint, _model(name, rounded=True), tolerance=0.3, typical=1e-4)
    return Subject(make, checkpoint, _model(name), tolerance=2e-5)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "reference": reference_subject,
    "native-float32": partial(native_subject, "float32"),
    "native-float32-odd": partial(native_subject, "float32-odd"),
    "native-q4_1": partial(native_subject, "q4_1"),
    "native-q4_1-odd": partial(native_subject, "q4_1-odd"),
    "native-q4_1-as-float32": partial(native_subject, "q4_1-odd", weights="float32"),
    "native-portable": partial(native_subject, "q4_1-odd", instruction_set="portable"),
}
