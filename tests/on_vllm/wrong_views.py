"""Negative controls: plans of a step that are wrong in one way each."""

from collections.abc import Callable
from typing import Any

import numpy as np


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


class Wrong:
    """A KvTree whose plan is changed before it is computed."""

    def __init__(self, tree: Any, change: Callable[[list[Any]], list[Any]]) -> None:
        self._tree, self._change = tree, change

    def step(self, *arguments: Any) -> list[Any]:
        return self._change(list(self._tree.step(*arguments)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


def mask_off(plan: list[Any]) -> list[Any]:
    return [*plan[:3], *_everything_of_the_step(plan[3:], plan[1])]


def index_as_position(plan: list[Any]) -> list[Any]:
    plan[2] = plan[2].min(initial=0) + np.arange(len(plan[2]), dtype=np.int32)
    return plan


def commit_forgotten(plan: list[Any]) -> list[Any]:
    """Prefixes are where they would be if committing had moved nothing: in the cache's first slots."""
    plan[5] = np.arange(len(plan[5]), dtype=np.int32) % 7
    return plan
