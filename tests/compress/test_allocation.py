"""The allocation of formats, against every combination there is."""

import itertools
import math

import numpy as np
import pytest
from bidtrie.compress import allocation
from bidtrie.compress.allocation import Budget, Choices, Option, allocate
from bidtrie.errors import InvalidInput
from bidtrie.models.group_format import GroupFormat

FORMATS = [
    GroupFormat(4, 64, pattern="1:4"),
    GroupFormat(4, 64, pattern="2:4"),
    GroupFormat(4, 128),
    GroupFormat(4, 32),
    GroupFormat(8, 64),
]


def random_choices(rng: np.random.Generator, linears: int, *, whole: bool = True) -> dict[str, Choices]:
    """Linears of different sizes whose options cost more the less they lose, but for some that nobody should take."""
    choices = {}
    for i in range(linears):
        weights = int(rng.integers(2, 12)) * 16
        count = int(rng.integers(2, len(FORMATS) + 1))
        options = [
            Option(
                format=format,
                bits=int(weights * rng.uniform(1.5, 9)),
                milliseconds=float(rng.uniform(0.1, 3)) if not whole else float(rng.integers(1, 30)),
                loss=float(rng.exponential()),
            )
            for format in FORMATS[:count]
        ]
        choices[f"linear{i}"] = Choices(weights, options)
    return choices


def brute_force(choices: dict[str, Choices], total: float, unit: str) -> float:
    """The least loss of all combinations whose cost is at most `total`."""
    best = math.inf
    for combination in itertools.product(*(each.options for each in choices.values())):
        cost = sum(option.bits if unit == "bits" else option.milliseconds for option in combination)
        if cost <= total * (1 + 1e-12):
            best = min(best, sum(option.loss for option in combination))
    return best


def range_of(choices: dict[str, Choices], unit: str) -> tuple[float, float]:
    costs = [
        [option.bits if unit == "bits" else option.milliseconds for option in each.options]
        for each in choices.values()
    ]
    return sum(map(min, costs)), sum(map(max, costs))


def test_bits_exactly_as_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        choices = random_choices(rng, 5)
        weights = sum(each.weights for each in choices.values())
        low, high = range_of(choices, "bits")
        total = rng.uniform(low, high)
        result = allocate(choices, Budget(total / weights, "bits"))
        expected = brute_force(choices, total, "bits")
        assert result.loss == pytest.approx(expected, rel=1e-12)
        assert result.loss == pytest.approx(sum(option.loss for option in result.chosen.values()))
        assert result.bound <= result.loss + 1e-12
        assert result.spent * weights <= total * (1 + 1e-12)
        assert result.spent * weights == pytest.approx(sum(o.bits for o in result.chosen.values()))
        assert all(option in choices[name].options for name, option in result.chosen.items())


@pytest.mark.parametrize("cells", [allocation.CELLS, 64])
def test_milliseconds_within_a_cell_a_linear(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "CELLS", cells)
    rng = np.random.default_rng(1)
    for _ in range(40):
        choices = random_choices(rng, 5, whole=False)
        low, high = range_of(choices, "ms")
        total = rng.uniform(low, high)
        result = allocate(choices, Budget(total, "ms"))
        assert result.spent <= total * (1 + 1e-12)
        tightened = low + (total - low) * (1 - len(choices) / cells)
        assert brute_force(choices, total, "ms") <= result.loss + 1e-12
        assert result.loss <= brute_force(choices, tightened, "ms") + 1e-12
        assert result.bound <= brute_force(choices, total, "ms") + 1e-12


def test_the_relaxation_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the dynamic program the comparison with brute force fails."""
    monkeypatch.setattr(allocation, "_by_grid", lambda linears, total: None)
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(60):
        choices = random_choices(rng, 5)
        weights = sum(each.weights for each in choices.values())
        total = rng.uniform(*range_of(choices, "bits"))
        result = allocate(choices, Budget(total / weights, "bits"))
        missed += result.loss > brute_force(choices, total, "bits") * (1 + 1e-9)
    assert missed > 10


def test_a_model_of_many_linears() -> None:
    """As many linears and formats as SmolLM2-135M has: near the bound, and no slower than a few seconds."""
    rng = np.random.default_rng(2)
    choices = {}
    for i in range(210):
        weights = int(rng.choice([110_592, 331_776, 884_736]))
        scale = rng.exponential()
        options = [
            Option(format, int(weights * bits) + table, bits / 4, scale * 4.0**-bits * rng.uniform(0.7, 1.3))
            for format in FORMATS
            for bits, table in ((2.25, 0), (3.25, 128), (4.125, 0), (4.25, 128), (4.5, 0), (8.25, 0))
        ]
        choices[f"linear{i}"] = Choices(weights, options)
    result = allocate(choices, Budget(3.5, "bits"))
    assert 3.49 < result.spent <= 3.5
    assert result.bound <= result.loss <= result.bound * 1.002


def test_what_matters_keeps_its_precision() -> None:
    """As an outcome: every linear has the same options, and one loses a hundred times as much."""
    choices = {}
    for i in range(6):
        factor = 100 if i == 2 else 1
        options = [
            Option(FORMATS[1], 3 * 1024, 1, 1.0 * factor),
            Option(FORMATS[3], 4 * 1024, 1, 0.1 * factor),
            Option(FORMATS[4], 8 * 1024, 1, 0.001 * factor),
        ]
        choices[f"linear{i}"] = Choices(1024, options)
    result = allocate(choices, Budget(4.7, "bits"))
    assert result.chosen["linear2"].format.bits == 8
    assert {option.format for name, option in result.chosen.items() if name != "linear2"} == {FORMATS[3]}


def test_more_than_the_best_is_not_spent() -> None:
    choices = random_choices(np.random.default_rng(3), 4)
    result = allocate(choices, Budget(1e6, "bits"))
    assert result.loss == pytest.approx(sum(min(o.loss for o in c.options) for c in choices.values()))


@pytest.mark.parametrize("unit", ["bits", "ms"])
def test_budgets_that_cannot_be_kept(unit: str) -> None:
    options = [Option(FORMATS[0], 2 * 1024, 0.5, 1.0), Option(FORMATS[3], 4 * 1024, 0.75, 0.5)]
    choices = {"one": Choices(1024, options), "two": Choices(1024, options)}
    expected = "expected 2 to 4 bits a weight" if unit == "bits" else "expected 1 to 1.5 ms"
    for limit in (0.9, 0.0, -1.0, math.nan, -math.inf, math.inf):
        with pytest.raises(InvalidInput, match=f"--budget-{unit}: {limit:g}, {expected}"):
            allocate(choices, Budget(limit, unit))  # type: ignore[arg-type]
    assert allocate(choices, Budget(2 if unit == "bits" else 1, unit)).loss == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
def test_losses_that_are_none(loss: float) -> None:
    with pytest.raises(ValueError, match="expected a finite cost, and a finite loss of 0 or more"):
        allocate({"one": Choices(16, [Option(FORMATS[0], 32, 1, loss)])}, Budget(8, "bits"))
