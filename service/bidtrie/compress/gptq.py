"""Codes and masks of a linear chosen together, so that its outputs change least.

The loss is that of the outputs, tr((W - Q) H (W - Q)^T) with H the mean of x x^T over the inputs x. Columns are rounded
one after the other, and what each rounding got wrong is made good by the columns that are still to come (GPTQ, Frantar
et al., 2022, arXiv:2210.17323; masks as in SparseGPT, 2023, arXiv:2301.00774). Columns that inputs activate most come
first (activation order); groups stay those of the original order, so their scales are fixed before. Afterwards scales
are refitted and codes are improved one column at a time (coordinate descent as in QuantEase, Behdin et al., 2023,
arXiv:2309.01885) in turns.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.codes import Codes, code_units, nearest_codes, pack_codes
from bidtrie.compress.reconstruct import refit_scales, row_losses
from bidtrie.compress.scales import Scales, fit_scales
from bidtrie.compress.sparsity import likely_mask, pack_positions
from bidtrie.compress.tables import learn_table
from bidtrie.errors import ModelError
from bidtrie.models.fields import printable
from bidtrie.models.group_tensor import GroupFormat, GroupTensor

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Share of the mean of H's diagonal that is added to it: directions that calibration did not see still count a little.
DAMPING = 0.01
#: Columns whose feedback to the later ones is summed up before it is applied (a multiple of four).
_BLOCK = 32
_CHUNK_WEIGHTS = 1 << 21


def proxy_loss(weight: NDArray[Any], tensor: GroupTensor, hessian: NDArray[Any]) -> float:
    """tr((W - Q) H (W - Q)^T): the mean over inputs of the outputs' squared error, summed over rows; in float64.

    weight: [rows, cols], what `tensor` stands for; hessian: [cols, cols], the mean of x x^T over the inputs.
    """
    h = hessian.astype(np.float64)
    step = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    error = weight - tensor.dequantize()
    return float(
        sum(row_losses(error[i : i + step].astype(np.float64), h).sum() for i in range(0, len(error), step))
    )


def solve_linear(
    weight: NDArray[Any],
    hessian: NDArray[Any],
    format: GroupFormat,
    *,
    order: bool = True,
    rounds: int = 2,
    name: str = "weight",
) -> GroupTensor:
    """`weight` [rows, cols], cols a multiple of 16, in `format`, with little output error.

    hessian: [cols, cols], the mean of x x^T over the linear's inputs x. order: whether the columns that inputs activate
    most go first. rounds: how often scales are refitted and codes improved afterwards; 0 is plain GPTQ. Raises
    ModelError naming `name` for shapes that do not fit, and for values that are not finite or too large.
    """
    _check(weight, hessian, name)
    rows, cols = weight.shape
    h = damped(hessian)
    importance = np.diag(h)
    table = learn_table(weight, importance, format, name=name) if format.table else None
    plan = _Plan.make(h, format, order)
    step = max(1, _CHUNK_WEIGHTS // cols)
    parts = [
        _solve(
            weight[first : first + step].astype(np.float64), h, importance, plan, format, table, rounds, name
        )
        for first in range(0, rows, step)
    ]
    return _assemble(format, (rows, cols), parts)


def damped(hessian: NDArray[Any]) -> Float64:
    """H in float64 with `DAMPING` on its diagonal: positive definite, the unit matrix if H is 0."""
    h: Float64 = hessian.astype(np.float64)
    mean = float(np.diag(h).mean())
    return h + np.eye(len(h)) * (DAMPING * mean if mean > 0 else 1.0)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows, solved."""

    codes: Codes
    kept: Bool | None
    numbers: Scales


@dataclass(frozen=True, slots=True)
class _Plan:
    """In which order columns go, and how their errors spread.

    order: int [cols]; spread: float64 [cols, cols], upper Cholesky factor of H^-1, both in that order.
    """

    order: NDArray[np.intp]
    spread: Float64

    @classmethod
    def make(cls, h: Float64, format: GroupFormat, order: bool) -> "_Plan":
        activity = np.diag(h)
        if not order:
            columns = np.arange(len(h))
        elif format.pattern == "dense":
            columns = np.argsort(-activity, kind="stable")
        else:
            # A four shares its mask: its columns stay together.
            fours = np.argsort(-activity.reshape(-1, 4).sum(axis=1), kind="stable")
            columns = (4 * fours[:, None] + np.arange(4)).ravel()
        inverse = np.linalg.inv(h[np.ix_(columns, columns)])
        spread = np.linalg.cholesky((inverse + inverse.T) / 2).T
        return cls(columns, spread.astype(np.float64))


def _solve(
    weight: Float64,
    h: Float64,
    importance: Float64,
    plan: _Plan,
    format: GroupFormat,
    table: NDArray[np.int8] | None,
    rounds: int,
    name: str,
) -> _Part:
    guess = None if format.pattern == "dense" else likely_mask(weight, importance, format.pattern)
    numbers = fit_scales(weight, importance, format, table, guess, name=name)
    codes, kept = _feed_back(weight, plan, format, numbers)
    for _ in range(rounds):
        numbers = refit_scales(weight, h, codes, kept, format, numbers)
        codes = _descend(weight, h, codes, kept, format, numbers)
    return _Part(codes, kept, refit_scales(weight, h, codes, kept, format, numbers) if rounds else numbers)


def _feed_back(
    weight: Float64, plan: _Plan, format: GroupFormat, numbers: Scales
) -> tuple[Codes, Bool | None]:
    """Codes [rows, cols] and, for a sparse format, which weights are kept; both in the columns' own order."""
    rows, cols = weight.shape
    scale, minimum = numbers.columns(format, cols)
    order, spread = plan.order, plan.spread
    # Columns lie one after the other, in the order in which they go.
    left = np.ascontiguousarray(weight.T[order])
    scale = np.ascontiguousarray(scale.T[order])
    minimum = None if minimum is None else np.ascontiguousarray(minimum.T[order])
    units = code_units(format, numbers.table)
    codes = np.zeros((cols, rows), np.uint8)
    kept = None if format.pattern == "dense" else np.zeros((cols, rows), np.bool_)
    for first in range(0, cols, _BLOCK):
        last = min(first + _BLOCK, cols)
        errors = np.empty((last - first, rows))
        for i in range(first, last):
            if kept is not None and i % 4 == 0:
                kept[i : i + 4] = choose_mask(left[i : i + 4], spread[i : i + 4, i : i + 4], format.pattern)
            low = None if minimum is None else minimum[i]
            codes[i] = nearest_codes(left[i], scale[i], low, format, numbers.table)
            value = units[codes[i]] * scale[i]
            if low is not None:
                value += low
            if kept is not None:
                value *= kept[i]
            error = (left[i] - value) / spread[i, i]
            left[i + 1 : last] -= np.outer(spread[i, i + 1 : last], error)
            errors[i - first] = error
        left[last:] -= spread[first:last, last:].T @ errors
    back = np.argsort(order)
    return np.ascontiguousarray(codes[back].T), None if kept is None else np.ascontiguousarray(kept[back].T)


def choose_mask(four: Float64, spread: Float64, pattern: str) -> Bool:
    """Which of four columns to keep, so that taking the others away costs the outputs least.

    four: [4, rows], weights as they are now; spread: [4, 4], the columns' part of the upper Cholesky factor of H^-1.
    The cost of setting columns P to 0 and adjusting all later ones and the rest of the four is w_P^T ([H^-1]_PP)^-1 w_P
    (the optimal brain surgeon's, for several weights at once). Of equal sets the first in lexical order is taken away.
    """
    inverse = spread.T @ spread
    count = {"2:4": 2, "1:4": 3}[pattern]
    sets = list(combinations(range(4), count))
    costs = np.empty((len(sets), four.shape[1]))
    for i, pruned in enumerate(sets):
        block = list(pruned)
        solved = np.linalg.solve(inverse[np.ix_(block, block)], four[block])
        costs[i] = (four[block] * solved).sum(axis=0)
    keeps = np.ones((len(sets), 4), np.bool_)
    for i, pruned in enumerate(sets):
        keeps[i, list(pruned)] = False
    return np.ascontiguousarray(keeps[costs.argmin(axis=0)].T)


def _descend(
    weight: Float64, h: Float64, codes: Codes, kept: Bool | None, format: GroupFormat, numbers: Scales
) -> Codes:
    """Once through all columns: each becomes the code that is best while all others stay; the loss never rises."""
    cols = weight.shape[1]
    scale, minimum = (None if each is None else each.T.copy() for each in numbers.columns(format, cols))
    assert scale is not None
    units = code_units(format, numbers.table)
    new = np.ascontiguousarray(codes.T)
    mask = None if kept is None else np.ascontiguousarray(kept.T)

    def values(of: Codes, columns: slice | int) -> Float64:
        result: Float64 = units[of] * scale[columns]
        if minimum is not None:
            result += minimum[columns]
        if mask is not None:
            result *= mask[columns]
        return result

    current = values(new, slice(None))
    error = weight.T - current
    for first in range(0, cols, _BLOCK):
        last = min(first + _BLOCK, cols)
        slope = h[first:last] @ error
        for i in range(first, last):
            wanted = current[i] + slope[i - first] / h[i, i]
            low = None if minimum is None else minimum[i]
            new[i] = nearest_codes(wanted, scale[i], low, format, numbers.table)
            value = values(new[i], i)
            change = value - current[i]
            current[i] = value
            error[i] -= change
            slope[i - first + 1 :] -= np.outer(h[i + 1 : last, i], change)
    return np.ascontiguousarray(new.T)


def _assemble(format: GroupFormat, shape: tuple[int, int], parts: list[_Part]) -> GroupTensor:
    codes = np.concatenate([part.codes for part in parts])
    positions = None
    if format.pattern != "dense":
        kept = np.concatenate([part.kept for part in parts if part.kept is not None])
        places = np.nonzero(kept.reshape(-1, 4))[1].reshape(shape[0], shape[1] // 4, -1)
        positions = pack_positions(places)
        codes = codes[kept].reshape(shape[0], -1)
    lows = [part.numbers.minimums for part in parts if part.numbers.minimums is not None]
    return GroupTensor(
        format=format,
        shape=shape,
        codes=pack_codes(codes, format.bits),
        scales=np.concatenate([part.numbers.scales for part in parts]),
        minimums=np.concatenate(lows) if lows else None,
        table=parts[0].numbers.table,
        positions=positions,
    )


def _check(weight: NDArray[Any], hessian: NDArray[Any], name: str) -> None:
    cols = weight.shape[1]
    if hessian.shape != (cols, cols):
        raise ModelError(
            f"tensor {printable(name)}: the Hessian has shape {list(hessian.shape)}, expected {[cols, cols]}"
        )
    if not np.isfinite(weight).all():
        raise ModelError(f"tensor {printable(name)} holds values that are not finite")
    if not np.isfinite(hessian).all():
        raise ModelError(f"tensor {printable(name)}: its inputs in the calibration are not finite")
