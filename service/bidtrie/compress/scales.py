"""Scales and minimums of groups, chosen by the weighted error that is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.codes import Half, code_units, nearest_codes, to_half
from bidtrie.models.group_tensor import GroupFormat

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: How much of a group's range the codes span: beyond its largest weight, since the positive side of signed codes ends
#: one step earlier than the negative one, down to where large weights are clipped for the sake of the others.
_SPANS = (0.65, 0.72, 0.79, 0.86, 0.93, 1.0, 1.1)
_REFITS = 2


@dataclass(frozen=True, slots=True)
class Scales:
    """The numbers of a weight's groups, float16 [rows, groups], and the table if the format has one."""

    scales: Half
    minimums: Half | None = None
    table: NDArray[np.int8] | None = None

    def columns(self, format: GroupFormat, cols: int) -> tuple[Float32, Float32 | None]:
        """Scale and minimum of every weight: float32 [rows, cols]."""
        repeats = format.group_size
        scale = np.repeat(self.scales.astype(np.float32), repeats, axis=1)[:, :cols]
        if self.minimums is None:
            return scale, None
        return scale, np.repeat(self.minimums.astype(np.float32), repeats, axis=1)[:, :cols]


def fit_scales(
    weight: NDArray[Any],
    importance: NDArray[Any],
    format: GroupFormat,
    table: NDArray[np.int8] | None = None,
    kept: NDArray[np.bool_] | None = None,
    *,
    name: str = "weight",
) -> Scales:
    """The scales with the least sum of importance * (weight - rounded weight)^2 of those tried.

    weight: [rows, cols]; importance: [cols], not negative; kept: bool [rows, cols] for a sparse format, the same count
    in every four. Several spans of each group's range are tried; the best one is refitted by least squares for its
    codes. Raises ModelError naming `name` for scales that float16 cannot hold.
    """
    groups, weights = _grouped(weight, importance, format, kept)
    best: tuple[Half, Half | None] | None = None
    least = np.full((*groups.shape[:2], 1), np.inf, np.float32)
    for span, low in _candidates(groups, format, table):
        half = to_half(span, "scale", name), None if low is None else to_half(low, "minimum", name)
        best, least = _better(best, least, half, groups, weights, format, table)
    assert best is not None
    for _ in range(_REFITS):
        refitted = _refit(groups, weights, best, format, table)
        best, least = _better(best, least, refitted, groups, weights, format, table)
    scale, minimum = best
    return Scales(scale[..., 0], None if minimum is None else minimum[..., 0], table)


def _grouped(
    weight: NDArray[Any], importance: NDArray[Any], format: GroupFormat, kept: NDArray[np.bool_] | None
) -> tuple[Float32, Float32]:
    """Kept weights and their importance, float32 [rows, groups, width]; what fills a short group weighs nothing."""
    rows = len(weight)
    weights = np.broadcast_to(importance, weight.shape)
    if kept is not None:
        weight, weights = weight[kept].reshape(rows, -1), weights[kept].reshape(rows, -1)
    width = format.kept(format.group_size)
    filling = ((0, 0), (0, -weight.shape[1] % width))
    groups = np.pad(weight.astype(np.float32), filling, mode="edge").reshape(rows, -1, width)
    return groups, np.pad(weights.astype(np.float32), filling).reshape(groups.shape)


def _candidates(
    groups: Float32, format: GroupFormat, table: NDArray[np.int8] | None
) -> Iterator[tuple[Float32, Float32 | None]]:
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    if format.minimum:
        for span in _SPANS:
            if span <= 1:
                # Halves, so that the range of huge weights does not overflow.
                half_range = (high / 2 - low / 2) * np.float32(span)
                yield half_range / 15 * 2, high / 2 + low / 2 - half_range
        return
    largest = np.maximum(high, -low)
    units = np.abs(code_units(format, table)).max()
    signs = (1,) if format.bits == 8 else (1, -1)
    for span in _SPANS:
        for sign in signs:
            yield largest * np.float32(sign * span / units), None


def _better(
    best: tuple[Half, Half | None] | None,
    least: Float32,
    candidate: tuple[Half, Half | None],
    groups: Float32,
    weights: Float32,
    format: GroupFormat,
    table: NDArray[np.int8] | None,
) -> tuple[tuple[Half, Half | None], Float32]:
    """For each group the one with the smaller error, and that error [rows, groups, 1]."""
    scale, minimum = candidate
    units = code_units(format, table).astype(np.float32)
    rounded = units[nearest_codes(groups, scale, minimum, format, table)] * scale.astype(np.float32)
    if minimum is not None:
        rounded += minimum.astype(np.float32)
    rounded -= groups
    error = (weights * rounded * rounded).sum(axis=2, keepdims=True)
    if best is None:
        return candidate, error
    won = error < least
    lows = None if minimum is None or best[1] is None else np.where(won, minimum, best[1])
    return (np.where(won, scale, best[0]), lows), np.minimum(error, least)


def _refit(
    groups: Float32,
    weights: Float32,
    numbers: tuple[Half, Half | None],
    format: GroupFormat,
    table: NDArray[np.int8] | None,
) -> tuple[Half, Half | None]:
    """Scales (and minimums) that fit the codes of `numbers` best; where there is nothing to fit, as they were."""
    scale, minimum = numbers
    units = code_units(format, table).astype(np.float32)[nearest_codes(groups, scale, minimum, format, table)]

    def total(values: Float32) -> Float32:
        summed: Float32 = (weights * values).sum(axis=2, keepdims=True)
        return summed

    uu, uw = total(units * units), total(units * groups)
    with np.errstate(all="ignore"):
        if minimum is None:
            fitted, lows = uw / uu, None
        else:
            n, u, w = total(np.ones_like(groups)), total(units), total(groups)
            fitted = (n * uw - u * w) / (n * uu - u * u)
            lows = ((w - fitted * u) / n).astype(np.float16)
        halves = fitted.astype(np.float16)
        good = np.isfinite(halves) if lows is None else np.isfinite(halves) & np.isfinite(lows)
    kept_lows = None if lows is None or minimum is None else np.where(good, lows, minimum)
    return np.where(good, halves, scale), kept_lows
