"""Codes and masks against explicit updates and exhaustive search in float64."""

import itertools

import numpy as np
import pytest
from bidtrie.compress import gptq
from bidtrie.compress.gptq import choose_mask, damped, proxy_loss, solve_linear
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.errors import ModelError
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from numpy.typing import NDArray
from reference.group_tensors import FORMATS, code_value, kept_columns, stored_code

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
SPARSE = [format for format in FORMATS if format.pattern != "dense"]


def problem(rows: int, cols: int, seed: int = 0) -> tuple[Float32, Float32]:
    """A weight, and the Hessian of inputs that depend on each other and are of unequal strength."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((cols, cols)) * np.exp(rng.standard_normal(cols)) / cols**0.5
    inputs = rng.standard_normal((4 * cols, cols)) @ mixing
    weight = rng.standard_normal((rows, cols)) * rng.uniform(0.05, 2, (rows, 1))
    return weight.astype(np.float32), (inputs.T @ inputs / len(inputs)).astype(np.float32)


def stored_values(tensor: GroupTensor, row: int, column: int) -> Float64:
    """What a weight of this row and column can become, in float64."""
    group = column // tensor.format.group_size
    low = 0.0 if tensor.minimums is None else float(tensor.minimums[row, group])
    codes = range(2**tensor.format.bits)
    return np.array([float(tensor.scales[row, group]) * code_value(tensor, code) + low for code in codes])


def surgeon(weight: Float64, h: Float64, order: list[int], tensor: GroupTensor) -> Float64:
    """GPTQ as its paper derives it: after each rounding, all columns left are set to their optimum outright.

    The columns that are rounded (R) are off by e; those that are left (L) minimise the loss at
    w_L + H_LL^-1 H_LR e. Masks and scales are those of `tensor`.
    """
    result = np.zeros_like(weight)
    for row, exact in enumerate(weight):
        kept = set(kept_columns(tensor, row))
        for i, column in enumerate(order):
            done, left = order[:i], order[i:]
            error = exact[done] - result[row, done]
            now = exact[left] + np.linalg.solve(h[np.ix_(left, left)], h[np.ix_(left, done)] @ error)
            if column in kept:
                values = stored_values(tensor, row, column)
                result[row, column] = values[np.abs(values - now[0]).argmin()]
    return result


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("ordered", [True, False])
def test_error_feedback(format: GroupFormat, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to setting the columns that are left to their optimum, up to near ties."""
    monkeypatch.setattr(gptq, "_BLOCK", 8)
    weight, hessian = problem(6, 48)
    tensor = solve_linear(weight, hessian, format, order=ordered, rounds=0)
    h = damped(hessian)
    if not ordered:
        order = list(range(48))
    elif format.pattern == "dense":
        order = sorted(range(48), key=lambda j: -h[j, j])
    else:
        fours = sorted(range(12), key=lambda f: -sum(h[j, j] for j in range(4 * f, 4 * f + 4)))
        order = [4 * f + j for f in fours for j in range(4)]
    expected = surgeon(weight.astype(np.float64), h, order, tensor)
    differing = np.abs(tensor.dequantize() - expected) > 1e-5
    assert differing.mean() < 0.01
    other = surgeon(weight.astype(np.float64), h, order[::-1], tensor)
    assert (np.abs(tensor.dequantize() - other) > 1e-5).mean() > 0.05, "another order is another result"


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
def test_masks_are_the_best_ones(pattern: str) -> None:
    """Of a row of four columns, against every mask with the rest solved by least squares."""
    keep = {"2:4": 2, "1:4": 1}[pattern]
    for seed in range(20):
        weight, hessian = problem(1, 16, seed)
        four, h = weight[0, :4].astype(np.float64), damped(hessian)[:4, :4]
        losses = {}
        for kept in itertools.combinations(range(4), keep):
            away = [j for j in range(4) if j not in kept]
            stay = list(kept)
            error = np.zeros(4)
            error[away] = four[away]
            error[stay] = -np.linalg.solve(h[np.ix_(stay, stay)], h[np.ix_(stay, away)] @ four[away])
            losses[kept] = error @ h @ error
        spread = np.linalg.cholesky(np.linalg.inv(h)).T
        found = choose_mask(four[:, None], spread, pattern)[:, 0]
        assert tuple(np.flatnonzero(found)) == min(losses, key=lambda kept: losses[kept])


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_less_loss_than_without_feedback(format: GroupFormat) -> None:
    """The negative control: rounding to nearest, and every step of the solver that is left out, loses more."""
    weight, hessian = problem(24, 96)
    nearest = proxy_loss(weight, quantize(weight, format), hessian)
    plain = proxy_loss(weight, solve_linear(weight, hessian, format, rounds=0), hessian)
    once = proxy_loss(weight, solve_linear(weight, hessian, format, rounds=1), hessian)
    twice = proxy_loss(weight, solve_linear(weight, hessian, format), hessian)
    assert twice <= once < plain < nearest
    uncorrelated = np.diag(np.diag(hessian))
    assert proxy_loss(weight, solve_linear(weight, uncorrelated, format), hessian) > plain


def test_activation_order_helps() -> None:
    """Summed over problems: of a single one it may not."""
    format = GroupFormat(4, 32)
    losses = {True: 0.0, False: 0.0}
    for seed in range(5):
        weight, hessian = problem(16, 96, seed)
        for order in losses:
            tensor = solve_linear(weight, hessian, format, order=order, rounds=0)
            losses[order] += proxy_loss(weight, tensor, hessian)
    assert losses[True] < 0.9 * losses[False]


def test_proxy_loss_is_the_outputs_error() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((200, 32))
    weight = rng.standard_normal((7, 32)).astype(np.float32)
    tensor = quantize(weight, GroupFormat(4, 32))
    outputs = inputs @ (weight.astype(np.float64) - tensor.dequantize()).T
    expected = np.square(outputs).sum(axis=1).mean()
    assert proxy_loss(weight, tensor, inputs.T @ inputs / 200) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_codes_are_a_local_optimum(format: GroupFormat) -> None:
    """Of rows that are solved long enough, no single code can be changed for the better."""
    weight, hessian = problem(3, 32, 4)
    tensor = solve_linear(weight, hessian, format, rounds=30)
    h = damped(hessian)
    error = weight.astype(np.float64) - tensor.dequantize()
    better = 0
    for row in range(3):
        loss = error[row] @ h @ error[row]
        for index, column in enumerate(kept_columns(tensor, row)):
            values = stored_values(tensor, row, column)
            for value in values - values[stored_code(tensor, row, index)]:
                changed = error[row].copy()
                changed[column] -= value
                better += changed @ h @ changed < loss * (1 - 1e-6)
    # The last thing that is done is to refit the scales: it may leave a code or two to be improved.
    assert better <= 3


def test_rows_are_solved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, hessian = problem(11, 48)
    for format in FORMATS:
        whole = solve_linear(weight, hessian, format)
        monkeypatch.setattr(gptq, "_CHUNK_WEIGHTS", 48 * 4)
        parts = solve_linear(weight, hessian, format)
        monkeypatch.undo()
        np.testing.assert_allclose(parts.dequantize(), whole.dequantize(), atol=1e-6)
        assert whole.problem() is None


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_odd_inputs(format: GroupFormat) -> None:
    """Columns that are never active, rows of zeros, a calibration that saw nothing."""
    weight, hessian = problem(5, 48)
    weight[1] = 0
    hessian[:, 5] = hessian[5] = 0
    for h in (hessian, np.zeros_like(hessian), np.outer(np.arange(48.0), np.arange(48.0))):
        tensor = solve_linear(weight, h, format)
        assert tensor.problem() is None
        assert tensor.is_finite()
        assert not tensor.dequantize()[1].any()


def test_wrong_inputs() -> None:
    weight, hessian = problem(4, 32)
    format = GroupFormat(4, 32)
    with pytest.raises(ModelError, match=r"'?w'?: the Hessian has shape \[32, 16\], expected \[32, 32\]"):
        solve_linear(weight, hessian[:, :16], format, name="w")
    with pytest.raises(ModelError, match="tensor w: its inputs in the calibration are not finite"):
        solve_linear(weight, hessian * np.float32(np.nan), format, name="w")
    weight[2, 3] = np.nan
    with pytest.raises(ModelError, match="tensor w holds values that are not finite"):
        solve_linear(weight, hessian, format, name="w")
    with pytest.raises(ModelError, match=r"tensor w: a scale of .* is needed, expected at most 65504"):
        solve_linear(np.full((4, 32), 1e8, np.float32), hessian, format, name="w")
