"""Compresses a model's linears in the order of computing, each for the inputs that the ones before it now give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bidtrie.compress.calibrate import Step, second_moments, steps
from bidtrie.compress.gptq import damped, proxy_loss, solve_linear
from bidtrie.compress.llama import Llama
from bidtrie.compress.memory import return_freed
from bidtrie.compress.work_folder import WorkFolder
from bidtrie.errors import InvalidInput
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.layout import EMBEDDING

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Solver:
    """How linears are solved.

    order: whether the columns that inputs activate most go first.
    rounds: how often scales are refitted and codes improved after the error feedback.
    correction: how much of what the linears before got wrong a linear makes good, 0 to 1: its outputs aim at those of
        the dense model on the dense model's own inputs (the idea of GPTAQ, Li et al., 2025, arXiv:2504.02692), the
        error of what they are added to included.
    """

    order: bool = True
    rounds: int = 2
    correction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.correction <= 1:
            raise InvalidInput.of("--correction", f"{self.correction:g}, expected 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """The fields, for a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Solved:
    """A linear by its module's name, and the loss of its outputs' errors (see `proxy_loss`)."""

    name: str
    tensor: GroupTensor
    proxy_loss: float


def solve_model(
    checkpoint: Checkpoint,
    formats: Mapping[str, GroupFormat],
    sequences: NDArray[np.int64],
    solver: Solver,
    work: WorkFolder | None = None,
    stage: str = "solved",
) -> Iterator[Solved]:
    """Every linear that `formats` names, in the order of computing: embedding, blocks, head.

    sequences: int64 [sequences, tokens], the calibration text. A tied embedding comes last, for the inputs that it has
    as the head. work: where solved linears are kept, under `stage`, and taken from if they are there. Raises ModelError
    naming a tensor that cannot be compressed.
    """
    dense = Llama(checkpoint)
    student = Llama(checkpoint, dense.weights)

    def solve(name: str, inputs: "_Inputs | None") -> Solved:
        kept = None if work is None else work.get(f"{stage}.{name}")
        if kept is None:
            weight: Float32 = dense.weights[f"{name}.weight"].numpy()
            # Of an embedding, inputs pick one row each: all columns count the same.
            hessian = np.eye(weight.shape[1], dtype=np.float32) if inputs is None else inputs.hessian
            target = weight
            if inputs is not None and solver.correction:
                target = weight + solver.correction * inputs.correction(weight)
            tensor = solve_linear(
                target,
                hessian,
                formats[name],
                order=solver.order,
                rounds=solver.rounds,
                name=f"{name}.weight",
            )
            kept = tensor, proxy_loss(weight, tensor, hessian)
            if work is not None:
                work.put(f"{stage}.{name}", *kept)
        student.weights[f"{name}.weight"] = torch.from_numpy(kept[0].dequantize())
        return Solved(name, *kept)

    table = EMBEDDING.removesuffix(".weight")
    if table in formats and not checkpoint.config.tie_word_embeddings:
        yield solve(table, None)
    exactly = steps(dense, sequences) if solver.correction else repeat(None)
    for step, exact in zip(steps(student, sequences), exactly, strict=False):
        inputs = _Inputs(step, exact)
        for name in step.linears:
            if name in formats:
                yield solve(name, inputs)
        return_freed()


class _Inputs:
    """What the solver needs to know of a step's inputs; worked out once for all of the step's linears, if at all."""

    def __init__(self, step: Step, exact: Step | None) -> None:
        """exact: the same step of the dense model."""
        self._step = step
        self._exact = exact

    @cached_property
    def hessian(self) -> Float32:
        return second_moments(self._step.inputs)

    def correction(self, weight: Float32) -> Float32:
        """What to add to a weight so that its outputs come nearest to those on the dense model's own inputs.

        With x and x' the inputs of the dense and of the compressed model, and h and h' what the outputs are added to,
        the least squares solution is (E[(h - h') x'^T] + W E[(x - x') x'^T]) H^-1.
        """
        missing = weight.astype(np.float64) @ self._drift
        if self._missed is not None:
            missing += self._missed
        correction: Float32 = np.linalg.solve(damped(self.hessian), missing.T).T.astype(np.float32)
        return correction

    @cached_property
    def _drift(self) -> Float32:
        assert self._exact is not None
        return second_moments(self._step.inputs, _difference(self._exact.inputs, self._step.inputs))

    @cached_property
    def _missed(self) -> Float32 | None:
        assert self._exact is not None
        if self._exact.added_to is None or self._step.added_to is None:
            return None
        return second_moments(self._step.inputs, _difference(self._exact.added_to, self._step.added_to))


@torch.inference_mode()
def _difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]
