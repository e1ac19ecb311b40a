"""Compresses a model's linears in the order of computing, each for the inputs that the ones before it now give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bidtrie.compress.calibrate import Step, second_moments, steps
from bidtrie.compress.gptq import damped, proxy_loss, solve_linear
from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.layout import EMBEDDING

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Solver:
    """How linears are solved.

    order: whether the columns that inputs activate most go first.
    rounds: how often scales are refitted and codes improved after the error feedback.
    correction: how much of what the blocks before got wrong a linear makes good, 0 to 1: its outputs aim at those of
        the dense model on the dense model's inputs (as GPTAQ does, Li et al., 2025, arXiv:2504.02692, and with the
        stream's own error).
    """

    order: bool = True
    rounds: int = 2
    correction: float = 0.5


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
) -> Iterator[Solved]:
    """Every linear that `formats` names, in the order of computing: embedding, blocks, head.

    sequences: int64 [sequences, tokens], the calibration text. A tied embedding comes last, for the inputs that it has
    as the head. Raises ModelError naming a tensor that cannot be compressed.
    """
    dense = Llama(checkpoint)
    student = Llama(checkpoint, dense.weights)
    table = EMBEDDING.removesuffix(".weight")
    if table in formats and not checkpoint.config.tie_word_embeddings:
        # Its inputs pick one row each: all columns count the same.
        unit = np.eye(checkpoint.config.hidden_size)
        yield _solve(student, table, formats[table], unit, None, solver)
    for exact, step in zip(steps(dense, sequences), steps(student, sequences), strict=True):
        if not any(name in formats for name in step.linears):
            continue
        hessian = second_moments(step.inputs)
        for name in step.linears:
            if name in formats:
                wanted = _wanted(dense, name, exact, step, hessian, solver.correction)
                yield _solve(student, name, formats[name], hessian, wanted, solver)


def _solve(
    student: Llama,
    name: str,
    format: GroupFormat,
    hessian: NDArray[np.float32] | Float64,
    wanted: NDArray[np.float32] | None,
    solver: Solver,
) -> Solved:
    weight = student.weights[f"{name}.weight"].numpy()
    target = weight if wanted is None else wanted
    tensor = solve_linear(
        target, hessian, format, order=solver.order, rounds=solver.rounds, name=f"{name}.weight"
    )
    student.weights[f"{name}.weight"] = torch.from_numpy(tensor.dequantize())
    return Solved(name, tensor, proxy_loss(weight, tensor, hessian))


def _wanted(
    dense: Llama, name: str, exact: Step, step: Step, hessian: NDArray[np.float32], correction: float
) -> NDArray[np.float32]:
    """The weight whose outputs on the compressed model's inputs are nearest to the dense model's on its own.

    With x and x' the inputs of the dense and of the compressed model, and h and h' what the outputs are added to, the
    least squares solution is W + (E[(h - h') x'^T] + W E[(x - x') x'^T]) H^-1.
    """
    weight: NDArray[np.float32] = dense.weights[f"{name}.weight"].numpy()
    if not correction:
        return weight
    missing = weight.astype(np.float64) @ second_moments(step.inputs, _differences(exact.inputs, step.inputs))
    if step.added_to is not None and exact.added_to is not None:
        missing += second_moments(step.inputs, _differences(exact.added_to, step.added_to))
    change = np.linalg.solve(damped(hessian), missing.T).T
    wanted: NDArray[np.float32] = (weight + correction * change).astype(np.float32)
    return wanted


def _differences(ours: object, theirs: object) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [a - b for a, b in zip(ours, theirs, strict=True)]  # type: ignore[call-overload]


__all__ = ["Solved", "Solver", "solve_model", "torch_weights"]
