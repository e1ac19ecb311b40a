"""Predicted losses, against gradients by hand, brute force in float64, and what replacing a linear really does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from bidtrie.compress.allocation import Choices
from bidtrie.compress.calibrate import calibrate
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.gptq import proxy_loss, solve_linear
from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.sensitivity import (
    Curvature,
    feedback_share,
    loss_choices,
    measured_losses,
    output_curvature,
    predicted_loss,
    spearman,
)
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.tensor import Tensor
from reference.llama import ReferenceLlama
from reference.tiny_models import random_checkpoint

INT8, INT4, HALF = GroupFormat(8, 32), GroupFormat(4, 32), GroupFormat(4, 32, pattern="2:4")
FORMATS = [HALF, INT4, INT8]
COSTS = CostTable({format.name: cost for format, cost in zip(FORMATS, (1.0, 2.0, 4.0), strict=True)}, 1)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(4, layers=3, vocabulary=64)


def choices_of(
    checkpoint: Checkpoint, sequences: np.ndarray, curvature: Curvature, *, feedback: bool = False
) -> dict[str, Choices]:
    return {
        name: choices
        for inputs in calibrate(Llama(checkpoint), sequences)
        for name, choices in loss_choices(checkpoint, FORMATS, inputs, curvature, COSTS, feedback=feedback)
    }


def loss_of(choices: Choices, format: GroupFormat) -> float:
    (option,) = [each for each in choices.options if each.format == format]
    return option.loss


def rounded(
    checkpoint: Checkpoint, names: Sequence[str], format: GroupFormat
) -> list[tuple[str, GroupTensor]]:
    return [(name, quantize(checkpoint.tensors[f"{name}.weight"].dequantize(), format)) for name in names]


@pytest.fixture(scope="module")
def sequences() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 64, (24, 32))


def test_curvature_is_that_of_gradients_by_finite_differences(checkpoint: Checkpoint) -> None:
    """A bias is added to every output of a linear at one position, and the drawn tokens' log-probability followed."""
    tokens = np.random.default_rng(1).integers(0, 64, (1, 5))
    name = "model.layers.1.self_attn.v_proj"
    drawn: list[torch.Tensor] = []
    original = torch.multinomial

    def remember(*arguments: object, **options: object) -> torch.Tensor:
        drawn.append(original(*arguments, **options))  # type: ignore[call-overload]
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", remember)
        found = output_curvature(checkpoint, tokens, seed=3)
    assert set(found) == {
        f"model.layers.{i}.{each}"
        for i in range(3)
        for each in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
        )
    }

    class Shifted(Llama):
        shift = torch.zeros(1, 5, 32, dtype=torch.float64)

        def _linear(self, inputs: torch.Tensor, linear: str) -> torch.Tensor:
            outputs = super()._linear(inputs, linear)
            return outputs + self.shift if linear == name else outputs

    weights = {key: value.double() for key, value in torch_weights(checkpoint).items()}
    model = Shifted(checkpoint, weights)
    model._inv_freq = model._inv_freq.double()

    def log_probability() -> float:
        logits = model.forward(torch.from_numpy(tokens))
        return float(torch.log_softmax(logits, -1).flatten(0, 1).gather(1, drawn[0]).sum())

    step = 1e-4
    squares = np.zeros(32)
    for position in range(5):
        for row in range(32):
            values = []
            for sign in (1, -1):
                model.shift = torch.zeros(1, 5, 32, dtype=torch.float64)
                model.shift[0, position, row] = sign * step
                values.append(log_probability())
            squares[row] += ((values[0] - values[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(found[name], squares / 5, rtol=1e-3)


def test_drawn_tokens_are_the_seeds(checkpoint: Checkpoint, sequences: np.ndarray) -> None:
    first, same, other = (output_curvature(checkpoint, sequences[:2], seed) for seed in (0, 0, 1))
    name = "model.layers.0.mlp.up_proj"
    np.testing.assert_array_equal(first[name], same[name])
    assert not np.array_equal(first[name], other[name])


def test_prediction_in_float64() -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((6, 32)).astype(np.float32)
    inputs = rng.standard_normal((100, 32))
    curvature = rng.exponential(size=6)
    hessian = (inputs.T @ inputs / 100).astype(np.float32)
    tensor = quantize(weight, INT4)
    change = inputs @ (weight.astype(np.float64) - tensor.dequantize()).T
    expected = 0.5 * (curvature * np.square(change).mean(axis=0)).sum()
    assert predicted_loss(weight, tensor, hessian, curvature) == pytest.approx(expected, rel=1e-4)


def test_the_measured_loss_is_the_divergence_in_float64(
    checkpoint: Checkpoint, sequences: np.ndarray
) -> None:
    few = sequences[:2]
    names = [
        f"model.layers.{each}" for each in ("0.self_attn.q_proj", "1.mlp.down_proj", "2.self_attn.o_proj")
    ]
    changes = rounded(checkpoint, names, HALF)
    told: list[tuple[int, int]] = []
    measured = measured_losses(checkpoint, few, changes, lambda *each: told.append(each))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    dense = ReferenceLlama(checkpoint)
    for (linear, group_tensor), loss in zip(changes, measured, strict=True):
        tensors = {**checkpoint.tensors, f"{linear}.weight": group_tensor}
        changed = ReferenceLlama(replace(checkpoint, tensors=tensors))
        total = 0.0
        for tokens in few:
            exact, other = (model.logits(tokens.tolist()) for model in (dense, changed))
            exact, other = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (exact, other))
            total += float((np.exp(exact) * (exact - other)).sum())
        assert loss == pytest.approx(total / few.size, rel=1e-3)


def test_predictions_rank_linears_as_measuring_does(checkpoint: Checkpoint, sequences: np.ndarray) -> None:
    """Linears whose outputs matter in different degrees: one layer's are scaled down until they hardly count."""
    tensors = dict(checkpoint.tensors)
    for i, factor in ((1, 0.1), (2, 0.4)):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            old = tensors[f"model.layers.{i}.{name}.weight"].dequantize()
            tensors[f"model.layers.{i}.{name}.weight"] = Tensor(
                "float32", old.shape, old * np.float32(factor)
            )
    uneven = replace(checkpoint, tensors=tensors)
    curvature = output_curvature(uneven, sequences, 0)
    choices = choices_of(uneven, sequences, curvature)
    predicted = [loss_of(each, INT4) for each in choices.values()]
    measured = measured_losses(uneven, sequences, rounded(uneven, list(choices), INT4))
    assert len(measured) == 21
    assert spearman(predicted, measured) > 0.9
    assert 0.5 < np.median(np.array(measured) / predicted) < 2, "nats a token, not only an order"
    # Negative control: the plain error of the outputs, without what the model makes of them.
    plain = choices_of(uneven, sequences, {name: np.ones_like(each) for name, each in curvature.items()})
    blind = [loss_of(each, INT4) for each in plain.values()]
    assert spearman(blind, measured) < spearman(predicted, measured) - 0.05


def test_choices(checkpoint: Checkpoint, sequences: np.ndarray) -> None:
    few = sequences[:2]
    curvature = output_curvature(checkpoint, few, 0)
    choices = choices_of(checkpoint, few, curvature)
    assert len(choices) == 21, "embedding and head are not among them"
    options = choices["model.layers.0.mlp.up_proj"].options
    assert [option.format for option in options] == FORMATS
    assert [option.bits for option in options] == [96 * 64 * bits / 2 for bits in (7, 9, 17)]
    assert [option.milliseconds for option in options] == pytest.approx(
        [96 * 64 / 1e6 * x for x in (1, 2, 4)]
    )
    assert options[0].loss > options[1].loss > options[2].loss > 0
    with_feedback = choices_of(checkpoint, few, curvature, feedback=True)
    for name, each in choices.items():
        ratios = [a.loss / b.loss for a, b in zip(with_feedback[name].options, each.options, strict=True)]
        assert ratios == pytest.approx([ratios[0]] * 3)
        assert 0 < ratios[0] < 1


def test_what_feedback_leaves() -> None:
    """Of a matrix of two by hand, of one without correlations, and as the solver then has it."""
    # Errors of the first column are made good by the second: 2 - 1 * 1 / 1.
    hessian = np.array([[2.0, 1.0], [1.0, 1.0]], np.float32)
    assert feedback_share(hessian) == pytest.approx((1 + 1) / 3, abs=0.02)
    assert feedback_share(np.diag([3.0, 2.0, 1.0]).astype(np.float32)) == pytest.approx(1)
    rng = np.random.default_rng(5)
    inputs = rng.standard_normal((400, 64)) @ (rng.standard_normal((64, 64)) * np.exp(-np.arange(64) / 12))
    hessian = (inputs.T @ inputs / 400).astype(np.float32)
    weight = rng.standard_normal((256, 64)).astype(np.float32)
    losses = [
        proxy_loss(weight, tensor, hessian)
        for tensor in (quantize(weight, INT4), solve_linear(weight, hessian, INT4, rounds=0))
    ]
    share = feedback_share(hessian)
    assert 0.05 < share < 0.5
    assert losses[1] / losses[0] == pytest.approx(share, rel=0.35)


def test_spearman() -> None:
    assert spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # By hand: ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4.
    assert spearman([1, 5, 5, 9], [0, 2, 1, 3]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman([1, 1], [1, 2]))
