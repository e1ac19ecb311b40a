"""Predicted losses, against gradients by hand, brute force in float64, and what replacing a linear really does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bidtrie.compress import sensitivity
from bidtrie.compress.calibrate import calibrate
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.sensitivity import (
    check_predictions,
    loss_choices,
    output_curvature,
    predicted_loss,
    spearman,
)
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.tensor import Tensor
from reference.llama import ReferenceLlama
from reference.tiny_models import random_checkpoint

INT8, INT4, HALF = GroupFormat(8, 32), GroupFormat(4, 32), GroupFormat(4, 32, pattern="2:4")
FORMATS = [HALF, INT4, INT8]
COSTS = CostTable({format.name: cost for format, cost in zip(FORMATS, (1.0, 2.0, 4.0), strict=True)}, 1)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint(4, layers=3, vocabulary=64)


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
    choices = dict(
        loss_choices(
            checkpoint,
            FORMATS,
            calibrate(Llama(checkpoint), few),
            output_curvature(checkpoint, few, 0),
            COSTS,
        )
    )
    checked = check_predictions(checkpoint, few, choices, [HALF], linears=4, seed=0)
    assert len({each.linear for each in checked}) == 4
    dense = ReferenceLlama(checkpoint)
    for each in checked:
        name = f"{each.linear}.weight"
        rounded = quantize(checkpoint.tensors[name].dequantize(), HALF).dequantize()
        changed = ReferenceLlama(
            replace(
                checkpoint, tensors={**checkpoint.tensors, name: Tensor("float32", rounded.shape, rounded)}
            )
        )
        total = 0.0
        for tokens in few:
            exact, other = (model.logits(tokens.tolist()) for model in (dense, changed))
            exact, other = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (exact, other))
            total += float((np.exp(exact) * (exact - other)).sum())
        assert each.measured == pytest.approx(total / few.size, rel=1e-3)
        (option,) = [each for each in choices[each.linear].options if each.format == HALF]
        assert each.predicted == option.loss


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
    inputs = list(calibrate(Llama(uneven), sequences))
    choices = dict(loss_choices(uneven, FORMATS, inputs, curvature, COSTS))
    checked = check_predictions(uneven, sequences, choices, [INT4], linears=21, seed=1)
    predicted, measured = ([getattr(each, field) for each in checked] for field in ("predicted", "measured"))
    assert len(checked) == 21
    assert spearman(predicted, measured) > 0.9
    ratio = np.array(measured) / predicted
    assert 0.5 < np.median(ratio) < 2, "nats a token, not only an order"
    # Negative control: the plain error of the outputs, without what the model makes of them.
    flat = {name: np.full_like(each, 1.0) for name, each in curvature.items()}
    plain = dict(loss_choices(uneven, FORMATS, inputs, flat, COSTS))
    blind = [sensitivity._of(plain[each.linear], INT4).loss for each in checked]
    assert spearman(blind, measured) < spearman(predicted, measured) - 0.05


def test_choices(checkpoint: Checkpoint, sequences: np.ndarray) -> None:
    few = sequences[:2]
    curvature = output_curvature(checkpoint, few, 0)
    choices = dict(loss_choices(checkpoint, FORMATS, calibrate(Llama(checkpoint), few), curvature, COSTS))
    assert len(choices) == 21, "embedding and head are not among them"
    options = choices["model.layers.0.mlp.up_proj"].options
    assert [option.format for option in options] == FORMATS
    assert [option.bits for option in options] == [96 * 64 * bits / 2 for bits in (7, 9, 17)]
    assert [option.milliseconds for option in options] == pytest.approx(
        [96 * 64 / 1e6 * x for x in (1, 2, 4)]
    )
    assert options[0].loss > options[1].loss > options[2].loss > 0


def test_spearman() -> None:
    assert spearman([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # By hand: ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4.
    assert spearman([1, 5, 5, 9], [0, 2, 1, 3]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman([1, 1], [1, 2]))
