"""What the inputs of each linear look like on calibration text: the Hessians that solvers take."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidtrie.compress.llama import ATTENTION_IN, ATTENTION_OUT, MLP_IN, MLP_OUT, Llama
from bidtrie.models.layout import EMBEDDING, HEAD

Float32 = NDArray[np.float32]

#: Tokens that go through a block at a time.
_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of linears that share them.

    linears: names of their modules, for example `model.layers.0.self_attn.q_proj`.
    hessian: float32 [cols, cols], the mean of x x^T over all tokens' inputs x; its diagonal are the second moments.
    """

    linears: tuple[str, ...]
    hessian: Float32


@dataclass(frozen=True, slots=True)
class Step:
    """All tokens where some linears take their inputs, in parts.

    inputs: [sequences, tokens, cols] each.
    added_to: hidden states [sequences, tokens, rows] that the linear's output is added to; None if it is not.
    """

    linears: tuple[str, ...]
    inputs: Sequence[Tensor]
    added_to: Sequence[Tensor] | None = None


def calibrate(model: Llama, sequences: NDArray[np.int64]) -> Iterator[Inputs]:
    """The inputs of all linears of the model as it is, block by block, the head's last.

    sequences: int64 [sequences, tokens]. Linears that share their inputs come together: q, k and v; gate and up. The
    head is named `lm_head`, or `model.embed_tokens` where it is tied.
    """
    for step in steps(model, sequences):
        yield Inputs(step.linears, second_moments(step.inputs))


@torch.inference_mode()
def second_moments(inputs: Sequence[Tensor], others: Sequence[Tensor] | None = None) -> Float32:
    """The mean of x x^T, or of y x^T with y from `others`: float32 [cols of y, cols of x], summed in float64."""
    total: Tensor | float = 0.0
    count = 0
    for x, y in zip(inputs, inputs if others is None else others, strict=True):
        flat = x.flatten(0, 1)
        total = total + (y.flatten(0, 1).T @ flat).double()
        count += len(flat)
    assert isinstance(total, Tensor)
    mean: Float32 = (total / count).float().numpy()
    return mean


def steps(model: Llama, sequences: NDArray[np.int64]) -> Iterator[Step]:
    """Calibration text on its way through a model whose weights may change as it goes, the head's inputs last.

    Each step computes with the weights of that moment: what is put into `model.weights` for the linears of the step
    that came last is what the inputs of the next are made with. The text goes through each block once.
    """
    tokens = torch.from_numpy(sequences)
    hidden = _each(model.embed, torch.split(tokens, max(1, _BATCH_TOKENS // tokens.shape[1])))
    for layer in range(model.config.num_layers):

        def named(linears: tuple[str, ...], layer: int = layer) -> tuple[str, ...]:
            return tuple(f"model.layers.{layer}.{each}" for each in linears)

        inputs = _each(partial(model.attention_input, layer), hidden)
        yield Step(named(ATTENTION_IN), inputs)
        inputs = _each(partial(model.attend, layer), inputs)
        yield Step(named(ATTENTION_OUT), inputs, hidden)
        hidden = _each(partial(model.add_attention, layer), hidden, inputs)
        inputs = _each(partial(model.mlp_input, layer), hidden)
        yield Step(named(MLP_IN), inputs)
        inputs = _each(partial(model.gate, layer), inputs)
        yield Step(named(MLP_OUT), inputs, hidden)
        hidden = _each(partial(model.add_mlp, layer), hidden, inputs)
    head = EMBEDDING if model.config.tie_word_embeddings else HEAD
    yield Step((head.removesuffix(".weight"),), _each(model.head_input, hidden))


@torch.inference_mode()
def _each(function: Callable[..., Tensor], *parts: Sequence[Tensor]) -> list[Tensor]:
    return [function(*each) for each in zip(*parts, strict=True)]
