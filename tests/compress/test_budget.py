"""From calibration text to formats within a budget."""

import json
from collections import Counter

import numpy as np
import pytest
from bidtrie.compress.allocation import Budget
from bidtrie.compress.budget import CHECKED_FORMATS, FORMATS, Analysis, analyse, formats_of
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.errors import InvalidInput
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_format import GroupFormat
from reference.tiny_models import random_checkpoint

HEAD = GroupFormat(8, 32)
#: Times that follow the bits.
COSTS = CostTable(
    {format.name: 8 * quantize(np.ones((128, 128), np.float32), format).nbytes / 2**14 for format in FORMATS},
    1,
)


def analysis_of(checkpoint: Checkpoint, *, feedback: bool) -> Analysis:
    sequences = np.random.default_rng(0).integers(0, 64, (8, 32))
    told: list[str] = []
    found = analyse(
        checkpoint,
        sequences,
        COSTS,
        feedback=feedback,
        seed=0,
        progress=lambda stage, done, total: told.append(stage),
    )
    assert list(Counter(told)) == ["gradients", "sensitivities", "checking predictions"]
    return found


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysis_of(random_checkpoint(4, vocabulary=64, hidden=128, intermediate=256), feedback=True)


def test_predictions_are_checked(analysis: Analysis) -> None:
    assert len(analysis.checked) == 24
    assert {each.format for each in analysis.checked} == {format.name for format in CHECKED_FORMATS}
    overall = analysis.spearman()
    assert overall is not None
    assert overall > 0.8
    by_format = [analysis.spearman(format) for format in CHECKED_FORMATS]
    assert all(each is not None and each > 0.3 for each in by_format)
    assert analysis.spearman(HEAD) is None, "nothing was measured"


@pytest.mark.parametrize("limit", [2.0, 3.0, 4.5])
def test_bits(analysis: Analysis, limit: float) -> None:
    checkpoint = random_checkpoint(4, vocabulary=64, hidden=128, intermediate=256)
    budget = Budget(limit, "bits")
    allocation = analysis.allocate(budget)
    formats = formats_of(allocation, checkpoint, HEAD)
    assert set(formats) == {name.removesuffix(".weight") for name in checkpoint.tensors if "norm" not in name}
    assert formats["model.embed_tokens"] == formats["lm_head"] == HEAD
    bits = weights = 0
    for name, format in formats.items():
        if name not in ("model.embed_tokens", "lm_head"):
            weight = checkpoint.tensors[f"{name}.weight"].dequantize()
            bits += 8 * quantize(weight, format).nbytes
            weights += weight.size
    assert bits / weights == pytest.approx(allocation.spent)
    assert limit * 0.95 < allocation.spent <= limit
    record = json.loads(json.dumps(analysis.record(budget, allocation)))
    assert record["budget"] == {"limit": limit, "unit": "bits"}
    assert record["lower_bound"] <= record["predicted_loss"]
    assert len(record["losses"]) == 14
    assert len(record["check"]["samples"]) == 24


def test_more_bits_lose_less_than_any_uniform_format(analysis: Analysis) -> None:
    weights = sum(each.weights for each in analysis.choices.values())
    last = np.inf
    uniform = [[each.options[i] for each in analysis.choices.values()] for i in range(len(FORMATS))]
    for options in sorted(uniform, key=lambda options: sum(option.bits for option in options)):
        found = analysis.allocate(Budget(sum(option.bits for option in options) / weights, "bits"))
        assert found.loss <= sum(option.loss for option in options) * (1 + 1e-9)
        assert found.loss <= last
        last = found.loss


def test_milliseconds(analysis: Analysis) -> None:
    costs = [[o.milliseconds for o in each.options] for each in analysis.choices.values()]
    low, high = (sum(map(f, costs)) for f in (min, max))
    allocation = analysis.allocate(Budget((low + high) / 3, "ms"))
    assert low < allocation.spent <= (low + high) / 3
    with pytest.raises(InvalidInput, match="--budget-ms: 1e-06, expected "):
        analysis.allocate(Budget(1e-6, "ms"))


def test_rows_that_no_format_fits_are_left_out() -> None:
    """And rounding to nearest is predicted to lose more than error feedback."""
    odd = random_checkpoint(4, vocabulary=64, intermediate=100)
    plain, solved = (analysis_of(odd, feedback=feedback) for feedback in (False, True))
    assert list(plain.left_out) == [f"model.layers.{layer}.mlp.down_proj" for layer in range(2)]
    assert len(plain.choices) == 12
    limit = Budget(4.0, "bits")
    assert solved.allocate(limit).loss < plain.allocate(limit).loss
    assert "model.layers.0.mlp.down_proj" not in formats_of(plain.allocate(limit), odd, HEAD)
