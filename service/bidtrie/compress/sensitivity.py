"""How much the model is predicted to lose when a linear is stored in a format, and how far that can be trusted (torch).

To second order, changing a linear's outputs by d costs KL = d^T F d / 2 nats a token, with F the Fisher information of
the outputs. F is taken as diagonal, and as independent of the inputs, as in K-FAC (Martens and Grosse, 2015,
arXiv:1503.05671): a weight error E then costs half of the sum over rows r of F_r * (E H E^T)_rr, with H the mean of
x x^T over the linear's inputs. F_r is the mean squared gradient of the log-probability of tokens that the model itself
draws: no labels are needed, and text that it finds surprising counts no more than other text.

E is that of round to nearest, which is quickly had. Error feedback leaves a share of it that the inputs decide
(`feedback_share`), nearly the same in every format.

The prediction is checked on a sample: one linear is replaced in the dense model, and the KL is measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bidtrie.compress.allocation import Choices, Option
from bidtrie.compress.calibrate import Inputs
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.gptq import damped
from bidtrie.compress.llama import Llama
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import GroupTensor
from bidtrie.models.layout import is_head

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
#: F_r: mean squared gradients of each output of each layer's linear, float64 [rows], by module.
Curvature = Mapping[str, Float64]
#: Told how many of how many steps are done.
Progress = Callable[[int, int], None]

#: Tokens whose logits are held at a time.
_BATCH_TOKENS = 512


class _Watched(Llama):
    """Sums the squares of the gradients of all linears' outputs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.squares: dict[str, Tensor] = {}

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        outputs = super()._linear(inputs, name)

        def see(gradient: Tensor) -> None:
            squares = gradient.double().square().sum(dim=(0, 1))
            self.squares[name] = self.squares[name] + squares if name in self.squares else squares

        outputs.register_hook(see)  # type: ignore[no-untyped-call]
        return outputs


def output_curvature(
    checkpoint: Checkpoint, sequences: NDArray[np.int64], seed: int, progress: Progress | None = None
) -> dict[str, Float64]:
    """F_r of every linear of every layer, from int64 [sequences, tokens]; `seed` draws the tokens."""
    generator = torch.Generator().manual_seed(seed)
    model = _Watched(checkpoint)
    parts = _batches(sequences)
    for done, tokens in enumerate(parts):
        if progress is not None:
            progress(done, len(parts))
        hidden = model.embed(tokens).requires_grad_()
        for layer in range(model.config.num_layers):
            hidden = model.block(layer, hidden)
        log_probabilities = functional.log_softmax(model.logits(hidden), dim=-1).flatten(0, 1)
        drawn = torch.multinomial(log_probabilities.detach().exp(), 1, generator=generator)
        torch.autograd.backward(log_probabilities.gather(1, drawn).sum())
    if progress is not None:
        progress(len(parts), len(parts))
    return {name: (squares / sequences.size).numpy() for name, squares in model.squares.items()}


def predicted_loss(weight: Float32, tensor: GroupTensor, hessian: Float32, curvature: Float64) -> float:
    """What storing `weight` [rows, cols] as `tensor` is predicted to cost, nats a token.

    hessian: [cols, cols], the mean of x x^T; curvature: [rows], F_r.
    """
    error = weight - tensor.dequantize()
    rows = np.einsum("rc,rc->r", error @ hessian, error, dtype=np.float64)
    return max(float(curvature @ rows) / 2, 0.0)


def feedback_share(hessian: Float32) -> float:
    """What error feedback (GPTQ) leaves of round to nearest's loss where rounding errors are alike: 0 to 1.

    Rounding column j costs its error's square times H_jj; where the later columns make good what they can, times
    H_jj given those, 1 / U_jj^2 with U the upper Cholesky factor of H^-1. The share is the ratio of the sums, columns
    taken in the solver's order.
    """
    h = damped(hessian)
    order = np.argsort(-np.diag(h), kind="stable")
    inverse = np.linalg.inv(h[np.ix_(order, order)])
    factor = np.linalg.cholesky((inverse + inverse.T) / 2)
    return float((1 / np.square(np.diag(factor))).sum() / np.trace(h))


def loss_choices(
    checkpoint: Checkpoint,
    formats: Sequence[GroupFormat],
    inputs: Inputs,
    curvature: Curvature,
    costs: CostTable,
    *,
    feedback: bool,
) -> Iterator[tuple[str, Choices]]:
    """The options of each of the layers' linears that share `inputs`; `feedback`: whether a solver will use it."""
    share = feedback_share(inputs.hessian) if feedback else 1.0
    for linear in inputs.linears:
        if is_head(linear):
            continue
        name = f"{linear}.weight"
        weight = checkpoint.tensors[name].dequantize()
        options = []
        for format in formats:
            tensor = quantize(weight, format, name=name)
            loss = share * predicted_loss(weight, tensor, inputs.hessian, curvature[linear])
            options.append(Option(format, 8 * tensor.nbytes, costs.milliseconds(format, weight.size), loss))
        yield linear, Choices(weight.size, options)


@dataclass(frozen=True, slots=True)
class Checked:
    """One linear in one format: predicted and measured KL to the dense model, nats a token."""

    linear: str
    format: str
    predicted: float
    measured: float


def measured_losses(
    checkpoint: Checkpoint,
    sequences: NDArray[np.int64],
    changed: Sequence[tuple[str, GroupTensor]],
    progress: Progress | None = None,
) -> list[float]:
    """KL to the dense model, nats a token, with one linear replaced at a time.

    changed: the linear's module, and what stands for its weight. The text goes through the blocks before it once for
    all of them.
    """
    with torch.inference_mode():
        return _measured(checkpoint, sequences, changed, progress)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, -1 to 1; equal values share their mean rank. NaN if either is constant or empty."""
    if not first or not second:
        return float("nan")
    ranks = [_ranks(np.asarray(each, np.float64)) for each in (first, second)]
    spread = [float(each.std()) for each in ranks]
    if not all(spread):
        return float("nan")
    centred = [each - each.mean() for each in ranks]
    return float((centred[0] * centred[1]).mean() / (spread[0] * spread[1]))


def _ranks(values: Float64) -> Float64:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Float64 = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _measured(
    checkpoint: Checkpoint,
    sequences: NDArray[np.int64],
    changed: Sequence[tuple[str, GroupTensor]],
    progress: Progress | None,
) -> list[float]:
    model = Llama(checkpoint)
    batches = _batches(sequences)
    # What enters each block, and the head, of the dense model.
    entering = [[model.embed(tokens) for tokens in batches]]
    for layer in range(model.config.num_layers):
        entering.append([model.block(layer, hidden) for hidden in entering[-1]])
    found = []
    for done, (linear, tensor) in enumerate(changed):
        if progress is not None:
            progress(done, len(changed))
        name = f"{linear}.weight"
        dense = model.weights[name]
        model.weights[name] = torch.from_numpy(tensor.dequantize())
        first = int(linear.split(".")[2])
        total = 0.0
        for hidden, exact in zip(entering[first], entering[-1], strict=True):
            other = hidden
            for layer in range(first, model.config.num_layers):
                other = model.block(layer, other)
            total += _divergence(model.logits(exact), model.logits(other))
        model.weights[name] = dense
        found.append(max(total / sequences.size, 0.0))
    if progress is not None:
        progress(len(changed), len(changed))
    return found


def _divergence(exact: Tensor, other: Tensor) -> float:
    """KL(exact || other), summed over tokens."""
    logs = [functional.log_softmax(each, dim=-1) for each in (exact, other)]
    return float(
        functional.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum(-1).double().sum()
    )


def _batches(sequences: NDArray[np.int64]) -> list[Tensor]:
    tokens = torch.from_numpy(sequences)
    return list(tokens.split(max(1, _BATCH_TOKENS // sequences.shape[1])))  # type: ignore[no-untyped-call]
