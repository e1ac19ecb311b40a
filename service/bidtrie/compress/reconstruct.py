"""Scales and minimums refitted in closed form to what the linear puts out, its codes given."""

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.codes import Codes, code_units
from bidtrie.compress.scales import Scales
from bidtrie.models.group_tensor import GroupFormat

Float64 = NDArray[np.float64]

#: Pulls groups towards their old numbers where others could stand in for them, relative to the equations' diagonal.
_RIDGE = 1e-9
_CHUNK_NUMBERS = 1 << 22


def row_losses(error: Float64, h: Float64) -> Float64:
    """e H e^T of every row e of `error` [rows, cols]."""
    losses: Float64 = np.einsum("rc,rc->r", error @ h, error)
    return losses


def refit_scales(
    weight: Float64,
    h: Float64,
    codes: Codes,
    kept: NDArray[np.bool_] | None,
    format: GroupFormat,
    numbers: Scales,
) -> Scales:
    """The scales (and minimums) of each row that minimise (w - q) H (w - q)^T for the given codes [rows, cols].

    All groups of a row are solved for at once, by least squares. They are rounded to float16 then; a row that this
    makes no better keeps its numbers.
    """
    rows, cols = weight.shape
    groups = format.groups(cols)
    unknowns = groups * (2 if format.minimum else 1)
    step = max(1, min(_CHUNK_NUMBERS // (unknowns * unknowns), _CHUNK_NUMBERS // cols))
    scales = numbers.scales.copy()
    minimums = None if numbers.minimums is None else numbers.minimums.copy()
    units = code_units(format, numbers.table)
    for first in range(0, rows, step):
        part = slice(first, first + step)
        values = units[codes[part]]
        if kept is not None:
            values *= kept[part]
        bases = [values, np.ones_like(values)] if format.minimum else [values]
        old = [scales[part], minimums[part]] if minimums is not None else [scales[part]]
        with np.errstate(over="ignore"):
            new = [each.astype(np.float16) for each in _fit(weight[part], h, bases, old, format.group_size)]
        better = np.isfinite(np.concatenate(new, axis=1)).all(axis=1)
        for each, before in zip(new, old, strict=True):
            each[~better] = before[~better]
        losses = [
            row_losses(weight[part] - _expand(each, bases, format.group_size), h) for each in (new, old)
        ]
        better &= losses[0] < losses[1]
        scales[part][better] = new[0][better]
        if minimums is not None:
            minimums[part][better] = new[1][better]
    return Scales(scales, minimums, numbers.table)


def _expand(numbers: list[NDArray[np.float16]], bases: list[Float64], group_size: int) -> Float64:
    """The weights that the numbers of all groups give, [rows, cols]."""
    total = np.zeros_like(bases[0])
    for each, basis in zip(numbers, bases, strict=True):
        total += np.repeat(each.astype(np.float64), group_size, axis=1)[:, : basis.shape[1]] * basis
    return total


def _fit(
    weight: Float64, h: Float64, bases: list[Float64], old: list[NDArray[np.float16]], group_size: int
) -> list[Float64]:
    """The normal equations of all rows, [rows, unknowns, unknowns], solved."""
    rows, cols = weight.shape
    starts = np.arange(0, cols, group_size)
    groups = len(starts)
    equations = np.empty((rows, len(bases) * groups, len(bases) * groups))
    for a, left in enumerate(bases):
        for g, start in enumerate(starts):
            spread = left[:, start : start + group_size] @ h[start : start + group_size]
            for b, right in enumerate(bases):
                equations[:, a * groups + g, b * groups : (b + 1) * groups] = np.add.reduceat(
                    spread * right, starts, axis=1
                )
    pulled = weight @ h
    wanted = np.concatenate([np.add.reduceat(pulled * basis, starts, axis=1) for basis in bases], axis=1)
    before = np.concatenate(old, axis=1).astype(np.float64)
    diagonal = np.einsum("rii->ri", equations)
    # Where all codes of a group are 0, its old numbers come out.
    ridge = np.where(diagonal > 0, _RIDGE * diagonal, 1.0)
    diagonal += ridge
    solved = np.linalg.solve(equations, (wanted + ridge * before)[..., None])[..., 0]
    return np.split(solved, len(bases), axis=1)
