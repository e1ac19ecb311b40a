"""The conformance suite on the vLLM engine. Bits are not promised; everything else is, slots included."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bidtrie.engine.base import Engine
from engine import conformance
from engine.conformance import CHECKS, SLOT_CHECKS, Check
from on_vllm.subjects import MODELS, SUBJECTS, vllm_subject

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


def _everything_of_the_step(view: list[Any], slots: Any) -> list[Any]:
    """The mask is off: each node sees all nodes of the step."""
    group, prefix_offsets, prefix_slots, _, _ = view
    count = len(slots)
    return [
        group,
        prefix_offsets,
        prefix_slots,
        np.arange(0, count * count + 1, count, dtype=np.int32),
        np.tile(slots, count),
    ]


class _Wrong:
    """A KvTree whose plan is changed before it is computed."""

    def __init__(self, tree: Any, change: Callable[[list[Any]], list[Any]]) -> None:
        self._tree, self._change = tree, change

    def step(self, *arguments: Any) -> list[Any]:
        return self._change(list(self._tree.step(*arguments)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


def _mask_off(plan: list[Any]) -> list[Any]:
    return [*plan[:3], *_everything_of_the_step(plan[3:], plan[1])]


def _index_as_position(plan: list[Any]) -> list[Any]:
    plan[2] = plan[2].min(initial=0) + np.arange(len(plan[2]), dtype=np.int32)
    return plan


def _commit_forgotten(plan: list[Any]) -> list[Any]:
    """Prefixes are where they would be if committing had moved nothing: in the cache's first slots."""
    plan[5] = np.arange(len(plan[5]), dtype=np.int32) % 7
    return plan


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_mask_off, conformance.tree),
        (_mask_off, conformance.several_sequences),
        (_index_as_position, conformance.tree),
        (_index_as_position, conformance.commit_a_branch),
        (_commit_forgotten, conformance.decoding),
        (_commit_forgotten, conformance.shared_prefix),
    ],
)
@pytest.mark.parametrize("name", ["vllm-llama", "vllm-groups"])
def test_a_wrong_view_is_seen(name: str, change: Callable[[list[Any]], list[Any]], check: Check) -> None:
    """Negative controls: mask off, positions wrong, prefixes in the wrong slots."""
    right = vllm_subject(name)

    def make(*, slots: int, max_nodes: int, threads: int) -> Engine:
        engine: Any = right.make(slots=slots, max_nodes=max_nodes, threads=threads)
        engine._tree = _Wrong(engine._tree, change)
        return engine

    with pytest.raises(AssertionError):
        check(replace(right, make=make))
