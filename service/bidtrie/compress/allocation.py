"""Which format each linear gets, so that the model's predicted loss is least within a budget.

A multiple-choice knapsack: of each linear's options exactly one is taken, costs and losses add up. Lagrangian
relaxation gives a solution, a lower bound of the loss, and which options no optimum can hold; dynamic programming over
a grid of costs decides between the rest (Kellerer, Pferschy and Pisinger, 2004, Knapsack Problems, chapter 11). That is
exact where all costs are multiples of a grid's cell (whole bits, in small models), and else within one cell a linear.
Precision is kept where it pays: nothing here knows of layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import InvalidInput
from bidtrie.models.group_format import GroupFormat

#: Steps of the grid of costs.
CELLS = 1 << 16
_BISECTIONS = 100
#: Sums of costs that are not whole numbers are compared with this relative slack.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a linear.

    bits: all that is stored: codes, scales, minimums, tables, positions.
    milliseconds: what it is predicted to add to a decoding step.
    loss: what it is predicted to add to the model's loss, nats a token; 0 or more.
    """

    format: GroupFormat
    bits: int
    milliseconds: float
    loss: float


@dataclass(frozen=True, slots=True)
class Choices:
    """A linear's options, and its dense count of weights."""

    weights: int
    options: Sequence[Option]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so much for all linears together: `bits` a weight on average, or `ms` in sum."""

    limit: float
    unit: Literal["bits", "ms"]

    def cost(self, option: Option) -> float:
        """What an option takes of it: bits, or milliseconds."""
        return option.bits if self.unit == "bits" else option.milliseconds

    def of_total(self, total: float, weights: int) -> float:
        """A sum of costs in the unit of `limit`."""
        return total / weights if self.unit == "bits" else total


@dataclass(frozen=True, slots=True)
class Allocation:
    """An option for each linear.

    spent: in the budget's unit. loss: the sum of the options' losses. bound: no allocation within the budget has less.
    """

    chosen: dict[str, Option]
    spent: float
    loss: float
    bound: float


@dataclass(frozen=True, slots=True)
class _Linear:
    """The options that are worth a look, cost ascending and loss descending."""

    options: tuple[Option, ...]
    cost: NDArray[np.float64]
    loss: NDArray[np.float64]

    def keep(self, which: NDArray[np.bool_]) -> "_Linear":
        kept = tuple(option for option, wanted in zip(self.options, which, strict=True) if wanted)
        return _Linear(kept, self.cost[which], self.loss[which])


def allocate(choices: Mapping[str, Choices], budget: Budget) -> Allocation:
    """The options of least total loss within the budget.

    Raises InvalidInput naming the flag and the range if even the cheapest options cost more, or the limit is no
    positive number; ValueError for a linear without options or with a loss or cost that is not finite and 0 or more.
    """
    weights = sum(each.weights for each in choices.values())
    linears = {name: _worthwhile(name, each, budget) for name, each in choices.items()}
    least = sum(float(each.cost[0]) for each in linears.values())
    most = sum(float(each.cost[-1]) for each in linears.values())
    total = budget.limit * weights if budget.unit == "bits" else budget.limit
    if not (math.isfinite(total) and least <= total * (1 + _ROUNDING)):
        low, high = (budget.of_total(each, weights) for each in (least, most))
        unit = "bits a weight" if budget.unit == "bits" else "ms"
        raise InvalidInput.of(
            f"--budget-{budget.unit}",
            f"{budget.limit:g}, expected {math.ceil(low * 1000) / 1000:g} to {math.ceil(high * 1000) / 1000:g} {unit} "
            "with these formats (more is of no use)",
        )
    every = list(linears.values())
    multiplier, bound = _multiplier(every, total)
    relaxed = [_cheapest(each, multiplier) for each in every]
    incumbent = _total(every, relaxed)[1]
    # An option that raises the bound above a solution that is known is in no optimum.
    hopeful = []
    for linear, taken in zip(every, relaxed, strict=True):
        reduced = linear.loss + multiplier * linear.cost
        possible = bound + reduced - reduced.min() <= incumbent + _ROUNDING * (abs(incumbent) + abs(bound))
        possible[taken] = True
        hopeful.append(linear.keep(possible))
    on_grid = _by_grid(hopeful, total)
    if on_grid is not None and _total(hopeful, on_grid)[1] < incumbent:
        every, relaxed = hopeful, on_grid
    cost, loss = _total(every, relaxed)
    chosen = {name: each.options[taken] for name, each, taken in zip(linears, every, relaxed, strict=True)}
    return Allocation(chosen, budget.of_total(cost, weights), loss, min(bound, loss))


def _worthwhile(name: str, choices: Choices, budget: Budget) -> _Linear:
    """Without options for which another one costs no more and loses no more."""
    ordered = sorted(choices.options, key=lambda option: (budget.cost(option), option.loss))
    kept: list[Option] = []
    for option in ordered:
        if not (math.isfinite(option.loss) and option.loss >= 0 and math.isfinite(budget.cost(option))):
            raise ValueError(f"{name}: {option}: expected a finite cost, and a finite loss of 0 or more")
        if not kept or option.loss < kept[-1].loss:
            kept.append(option)
    if not kept:
        raise ValueError(f"{name} has no options")
    cost, loss = ([f(option) for option in kept] for f in (budget.cost, lambda option: option.loss))
    return _Linear(tuple(kept), np.array(cost, np.float64), np.array(loss, np.float64))


def _cheapest(linear: _Linear, multiplier: float) -> int:
    """The option of least loss + multiplier * cost; of equal ones, the one of least cost."""
    return int(np.argmin(linear.loss + multiplier * linear.cost))


def _total(linears: Sequence[_Linear], taken: Sequence[int]) -> tuple[float, float]:
    """Cost and loss."""
    cost = math.fsum(float(each.cost[i]) for each, i in zip(linears, taken, strict=True))
    return cost, math.fsum(float(each.loss[i]) for each, i in zip(linears, taken, strict=True))


def _multiplier(linears: Sequence[_Linear], total: float) -> tuple[float, float]:
    """The least price of a unit of cost at which the best options fit, and the best lower bound of the loss."""

    def at(price: float) -> tuple[bool, float]:
        taken = [_cheapest(each, price) for each in linears]
        cost, loss = _total(linears, taken)
        return cost <= total * (1 + _ROUNDING), loss + price * (cost - total)

    fits, bound = at(0.0)
    if fits:
        return 0.0, bound
    low, high = 0.0, 1e-30
    while not at(high)[0]:
        low, high = high, high * 16
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high) if low else high / 2
        fits, value = at(middle)
        bound = max(bound, value)
        low, high = (low, middle) if fits else (middle, high)
    return high, max(bound, at(high)[1])


def _by_grid(linears: Sequence[_Linear], total: float) -> list[int] | None:
    """Dynamic programming over what is spent beyond the cheapest options, rounded up to whole cells."""
    slack = total - sum(float(each.cost[0]) for each in linears)
    extra = [each.cost - each.cost[0] for each in linears]
    if slack < 0:
        return None
    cell = slack / CELLS
    if all((each == np.floor(each)).all() for each in extra):
        # Whole bits: exact if their common divisor gives few enough cells.
        divisor = reduce(math.gcd, (int(value) for each in extra for value in each), 0)
        cell = max(cell, float(divisor)) if divisor and slack / divisor <= CELLS else cell
    if cell == 0:
        return [0] * len(linears)
    steps = [np.ceil(each / cell - 1e-9).astype(np.int64) for each in extra]
    room = int(slack / cell + 1e-9)
    best = np.zeros(room + 1)
    taken = []
    for linear, step in zip(linears, steps, strict=True):
        now = np.full(room + 1, np.inf)
        which = np.zeros(room + 1, np.uint8)
        for i, (loss, used) in enumerate(zip(linear.loss, step, strict=True)):
            if used > room:
                break
            with_it = best[: room + 1 - used] + loss
            better = with_it < now[used:]
            now[used:][better] = with_it[better]
            which[used:][better] = i
        best = now
        taken.append(which)
    at, found = int(np.argmin(best)), []
    for which, step in zip(reversed(taken), reversed(steps), strict=True):
        found.append(int(which[at]))
        at -= int(step[found[-1]])
    return found[::-1]
