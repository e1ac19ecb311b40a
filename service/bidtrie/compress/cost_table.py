"""What a weight of each format costs in a decoding step on this machine, measured once and kept.

Measured as `bench/kernels.py` does: the linears of layers of the model's shape, packed, one node, nothing between them,
formats in turn. A linear's time is its share of weights: decoding reads every weight once. Attention, norms and the
head are not in it.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidtrie import _native
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.home import home
from bidtrie.models.config import ModelConfig
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import COLUMN_MULTIPLE
from bidtrie.models.layout import is_head, linear_shapes

Shape = tuple[int, int]
#: Told how many formats of how many are packed and ready to be measured.
Progress = Callable[[int, int], None]

#: Weights of a stack: enough that most caches do not hold its packed bytes whole.
_STACK_WEIGHTS = 60_000_000
_ROUNDS = 5
_PASSES = 3


@dataclass(frozen=True, slots=True)
class CostTable:
    """ms that a million weights add to a decoding step, by the format's name; `threads`: with how many."""

    ms_per_million: Mapping[str, float]
    threads: int

    def milliseconds(self, format: GroupFormat, weights: int) -> float:
        """Of a linear of so many weights. Raises KeyError for a format that was not measured."""
        return self.ms_per_million[format.name] * weights / 1e6


def cost_table(
    config: ModelConfig, formats: Iterable[GroupFormat], threads: int, progress: Progress | None = None
) -> CostTable:
    """The costs of `formats`, from this machine's file in the cache folder, measured now where they are not there.

    Times on shared machines drift: those of one file were taken in turn, so if one is missing all are measured anew.
    """
    wanted = {format.name: format for format in formats}
    shapes = _layer_shapes(config)
    file = _file(shapes, threads)
    known = _read(file)
    if not wanted.keys() <= known.keys():
        known = measure(shapes, list(wanted.values()), threads, progress)
        _write(file, known)
    return CostTable({name: known[name] for name in wanted}, threads)


def measure(
    shapes: Sequence[Shape], formats: Sequence[GroupFormat], threads: int, progress: Progress | None = None
) -> dict[str, float]:
    """ms a million weights of each format, the median of rounds in which formats take turns.

    shapes: the linears of one layer; as many layers as make a stack that is larger than most caches.
    """
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    layers = max(1, round(_STACK_WEIGHTS / sum(rows * cols for rows, cols in shapes)))
    stacks = []
    for done, format in enumerate(formats):
        if progress is not None:
            progress(done, len(formats))
        stack = _native.LinearStack()
        layer = [quantize(weight, format) for weight in weights]
        for _ in range(layers):
            for tensor in layer:
                stack.add(tensor)
        stacks.append(stack)
    times: list[list[float]] = [[] for _ in stacks]
    for _ in range(_ROUNDS):
        for stack, found in zip(stacks, times, strict=True):
            found += stack.time(1, threads, _PASSES)
    if progress is not None:
        progress(len(formats), len(formats))
    return {
        format.name: float(np.median(found)) * 1e3 / (stack.weights / 1e6)
        for format, stack, found in zip(formats, stacks, times, strict=True)
    }


def _layer_shapes(config: ModelConfig) -> list[Shape]:
    """The linears of the first layer that a format fits."""
    return [
        shape
        for name, shape in linear_shapes(config).items()
        if name.startswith("model.layers.0.") and not is_head(name) and shape[1] % COLUMN_MULTIPLE == 0
    ]


def _file(shapes: Sequence[Shape], threads: int) -> Path:
    """One for each processor's best kernels, number of threads and shape of layers."""
    cores = len(os.sched_getaffinity(0))
    identity = json.dumps([_native.instruction_sets(), cores, threads, shapes])
    return home() / "format-costs" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"


def _read(file: Path) -> dict[str, float]:
    """What the file says; nothing if it is not there or not readable: it is measured anew then."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))["ms_per_million"]
        return {str(name): float(value) for name, value in found.items() if float(value) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(file: Path, costs: Mapping[str, float]) -> None:
    """Whole or not at all; a cache folder that cannot be written only means that it is measured again."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"ms_per_million": dict(costs)}, indent=2) + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
