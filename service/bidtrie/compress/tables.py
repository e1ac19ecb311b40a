"""The 16 values that 4-bit codes may stand for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.scales import fit_scales
from bidtrie.compress.sparsity import likely_mask
from bidtrie.models.group_tensor import TABLE_LIMIT, GroupFormat

Float64 = NDArray[np.float64]

#: NormalFloat4: quantiles of the normal distribution with an exact zero, from -1 to 1 (Dettmers et al., 2023, QLoRA,
#: arXiv:2305.14314, appendix E).
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
#: Steps a unit in which weights are counted before entries are chosen.
_FINENESS = 16
#: How often scales and entries are chosen in turns.
_TURNS = 3
#: Rows that a table is learned from; those of an embedding are far more than it takes.
_MOST_ROWS = 4096


def normal_table() -> NDArray[np.int8]:
    """int8 [16], ascending from -32 to 32: NormalFloat4 in integers, for weights that are about normal."""
    table: NDArray[np.int8] = np.rint(np.array(_NF4) * TABLE_LIMIT).astype(np.int8)
    return table


def learn_table(
    weight: NDArray[Any], importance: NDArray[Any], format: GroupFormat, *, name: str = "weight"
) -> NDArray[np.int8]:
    """int8 [16], ascending: entries for the weights of one linear, `importance` [cols] telling how much each counts.

    Begins with `normal_table`; then scales are fitted to the table, and the table to the weights in units of their
    scales, in turns. Of a tall weight, rows at even distances are taken.
    """
    rows = weight[:: -(-len(weight) // _MOST_ROWS)]
    kept = None if format.pattern == "dense" else likely_mask(rows, importance, format.pattern)
    table = normal_table()
    for _ in range(_TURNS):
        scales, _ = fit_scales(rows, importance, format, table, kept, name=name).columns(
            format, rows.shape[1]
        )
        units = np.divide(rows, scales, out=np.zeros_like(scales), where=scales != 0)
        counts = np.broadcast_to(importance, rows.shape) * np.square(scales.astype(np.float64))
        table = best_entries(units, counts) if kept is None else best_entries(units[kept], counts[kept])
    return table


def best_entries(values: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int8]:
    """int8 [16], ascending: the integers from -32 to 32 that the values, weighted by `counts`, are nearest to.

    The least sum of count * (value - entry)^2, exactly but for the values' rounding to sixteenths: dynamic
    programming over the entries in ascending order (k-means in one dimension as in Wang and Song, 2011,
    Ckmeans.1d.dp).
    """
    edge = TABLE_LIMIT * _FINENESS
    places = np.clip(np.rint(values * _FINENESS), -edge, edge).astype(np.int64).ravel() + edge
    weights = np.bincount(places, counts.ravel(), minlength=2 * edge + 1)
    points = np.arange(-edge, edge + 1) / _FINENESS
    # Sums of count * value^k over all points below an index.
    sums = [np.concatenate([[0.0], np.cumsum(weights * points**k)]) for k in range(3)]
    entries = np.arange(-TABLE_LIMIT, TABLE_LIMIT + 1)
    at = _FINENESS * (entries + TABLE_LIMIT)

    def cost(first: NDArray[np.int64], last: NDArray[np.int64], entry: NDArray[np.int64]) -> Float64:
        """Of all points from `first` to before `last`, when they become `entry`."""
        n, s, q = (each[last] - each[first] for each in sums)
        return np.asarray(q - 2 * entry * s + entry * entry * n, np.float64)

    # between[a, b]: the points from entry a to entry b, each to the nearer one.
    middle = (at[:, None] + at[None, :] + 1) // 2
    between = cost(at[:, None], middle, entries[:, None]) + cost(middle, at[None, :], entries[None, :])
    between[np.tri(len(entries), dtype=bool)] = np.inf
    total = cost(np.zeros_like(at), at, entries)
    choices = []
    for _ in range(15):
        totals = total[:, None] + between
        choices.append(totals.argmin(axis=0))
        total = totals.min(axis=0)
    total = total + cost(at, np.full_like(at, 2 * edge + 1), entries)
    chosen = [int(total.argmin())]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    return entries[chosen[::-1]].astype(np.int8)
