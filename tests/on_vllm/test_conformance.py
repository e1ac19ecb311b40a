"""The conformance suite on the vLLM engine. Bits are not promised; everything else is, slots included."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bidtrie.engine.base import Engine
from engine import conformance
from engine.conformance import CHECKS, SLOT_CHECKS, Check
from on_vllm.subjects import MODELS, SUBJECTS, vllm_subject
from on_vllm.wrong_views import Wrong, commit_forgotten, index_as_position, mask_off

ALL = CHECKS | SLOT_CHECKS


@pytest.mark.parametrize("check", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", SUBJECTS)
def test_conformance(name: str, check: Check) -> None:
    check(vllm_subject(name))


@pytest.mark.parametrize(
    "check",
    [conformance.tree, conformance.commit_a_branch, conformance.shared_prefix, conformance.candidates],
)
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, check: Check) -> None:
    check(vllm_subject(name))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (mask_off, conformance.tree),
        (mask_off, conformance.several_sequences),
        (index_as_position, conformance.tree),
        (index_as_position, conformance.commit_a_branch),
        (commit_forgotten, conformance.decoding),
        (commit_forgotten, conformance.shared_prefix),
    ],
)
@pytest.mark.parametrize("name", ["vllm-llama", "vllm-groups"])
def test_a_wrong_view_is_seen(name: str, change: Callable[[list[Any]], list[Any]], check: Check) -> None:
    """Negative controls: mask off, positions wrong, prefixes in the wrong slots."""
    right = vllm_subject(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        engine: Any = right.make(slots=slots, max_nodes=max_nodes, threads=threads)
        engine._tree = Wrong(engine._tree, change)
        return engine

    with pytest.raises(AssertionError):
        check(replace(right, make=make))
