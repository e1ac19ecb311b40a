"""Calibration against plain loops, a fine grid, and answers made with a known temperature."""

from fractions import Fraction
from math import ceil, cos, exp, fsum, log

import numpy as np
import pytest
from bidtrie.evaluation.calibration import Calibration, Choices, fit_temperature
from bidtrie.evaluation.minimum import minimum
from bidtrie.evaluation.reliability import (
    BINS,
    calibration_error,
    equal_mass,
    equal_width,
    error_if_calibrated,
)
from bidtrie.requests import ScoredSegment


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda x: (x - 1.234567) ** 2, -3.0, 4.0),
        (lambda x: abs(x + 2.9), -3.0, 4.0),
        (lambda x: x, -3.0, 4.0),
        (lambda x: -x, -3.0, 4.0),
        # Several valleys, the deepest not in the middle.
        (lambda x: cos(3 * x) + 0.1 * x, -3.0, 4.0),
    ],
)
def test_the_minimum_is_that_of_a_fine_grid(function, low, high):
    grid = np.linspace(low, high, 700_001)
    best = grid[np.argmin([function(x) for x in grid.tolist()])]
    assert minimum(function, low, high) == pytest.approx(best, abs=2e-4)


def test_few_calls_are_needed():
    calls = []
    minimum(lambda x: calls.append(x) or x * x, -1.0, 1.0)
    assert len(calls) < 80
    assert all(-1 <= x <= 1 for x in calls)


def plain_equal_width(probabilities, right) -> float:
    """The definition, bin by bin, without rounding."""
    n, total = len(right), Fraction(0)
    for i in range(BINS):
        members = [
            (Fraction(p), hit)
            for p, hit in zip(probabilities, right, strict=True)
            if (Fraction(i, BINS) < Fraction(p) <= Fraction(i + 1, BINS)) or (i == 0 and p == 0)
        ]
        if members:
            confidence = sum(p for p, _ in members) / len(members)
            total += Fraction(len(members), n) * abs(
                confidence - Fraction(sum(hit for _, hit in members), len(members))
            )
    return float(total)


def plain_equal_mass(probabilities, right) -> float:
    pairs = sorted(zip(probabilities, right, strict=True), key=lambda pair: pair[0])
    n, total, begin = len(pairs), Fraction(0), 0
    for i in range(BINS):
        size = ceil((n - begin) / (BINS - i))
        members, begin = pairs[begin : begin + size], begin + size
        total += abs(sum(Fraction(p) - int(hit) for p, hit in members)) / n
    return float(total)


@pytest.mark.parametrize("n", [1, 7, 15, 16, 400])
def test_errors_are_those_of_plain_loops(n):
    generator = np.random.default_rng(n)
    probabilities, right = generator.random(n), generator.random(n) < 0.4
    probabilities[0] = float(n % 2)
    values, hits = probabilities.tolist(), right.tolist()
    width, mass = equal_width(probabilities, right), equal_mass(probabilities, right)
    assert calibration_error(width) == pytest.approx(plain_equal_width(values, hits), abs=1e-12)
    assert calibration_error(mass) == pytest.approx(plain_equal_mass(values, hits), abs=1e-12)
    assert sum(each.n for each in width) == sum(each.n for each in mass) == n
    assert len(mass) == min(n, BINS)
    # Negative control: turned labels are another error.
    assert calibration_error(equal_width(probabilities, ~right)) != pytest.approx(
        calibration_error(width), abs=1e-6
    )


def test_the_error_of_true_probabilities_is_near_its_expectation():
    generator = np.random.default_rng(3)
    probabilities = generator.random(600)
    expected = error_if_calibrated(probabilities)
    assert 0.03 < expected < 0.08
    true = calibration_error(equal_width(probabilities, generator.random(600) < probabilities))
    assert abs(true - expected) < 0.03
    # Negative control: too sure by far.
    wrong = calibration_error(equal_width(probabilities, generator.random(600) < probabilities**3))
    assert wrong > expected + 0.1
    # Fewer answers vary more.
    assert error_if_calibrated(probabilities[:50]) > 2 * expected


def answer(*scored: tuple[str, float]) -> list[ScoredSegment]:
    return [ScoredSegment(path, path, tuple(path.split(" > ")), score) for path, score in scored]


ANSWERS = [
    answer(("Food > Bread", 2.0), ("Art", 1.0), ("Food", 0.5), ("Cars", -1.0)),
    answer(("Art", 700.0), ("Cars", 699.0)),
    [],
    answer(("Cars", -3.0)),
]


def test_probabilities_are_a_softmax_and_its_sums():
    right = [True, False, True, False]
    tier1, path = (Choices.of(ANSWERS, right, tier1=flag) for flag in (True, False))
    assert tier1.right.tolist() == path.right.tolist() == [True, False, False]
    for temperature in (0.5, 1.0, 3.0):
        masses = [exp(score / temperature) for score in (2.0, 1.0, 0.5, -1.0)]
        second = 1 / (1 + exp(-1 / temperature))
        whole = fsum(masses)
        assert path.probabilities(temperature) == pytest.approx([masses[0] / whole, second, 1.0])
        assert tier1.probabilities(temperature) == pytest.approx(
            [(masses[0] + masses[2]) / whole, second, 1.0]
        )
        clipped = [(masses[0] + masses[2]) / whole, 1 - second, 1e-6]
        assert tier1.loss(temperature) == pytest.approx(-sum(map(log, clipped)) / 3)


def drawn(n: int, temperature: float, seed: int, k: int = 12) -> Choices:
    """Pages whose first answers are right as often as the softmax at a temperature says."""
    generator = np.random.default_rng(seed)
    scores = -np.sort(-generator.normal(0, 3, (n, k)), axis=1)
    tops = generator.integers(0, 4, (n, k))
    answers = [
        [
            ScoredSegment(str(i), "", (str(top), str(i)), score)
            for i, (top, score) in enumerate(zip(*row, strict=True))
        ]
        for row in zip(tops.tolist(), scores.tolist(), strict=True)
    ]
    unjudged = Choices.of(answers, [False] * n, tier1=True)
    truth = unjudged.probabilities(temperature)
    return Choices.of(answers, (generator.random(n) < truth).tolist(), tier1=True)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    choices = drawn(4_000, temperature, seed=1)
    found = fit_temperature(choices)
    assert found == pytest.approx(temperature, rel=0.12)
    grid = np.exp(np.linspace(log(0.05), log(50), 801))
    losses = [choices.loss(each) for each in grid.tolist()]
    assert choices.loss(found) <= min(losses) + 1e-9
    assert found == pytest.approx(grid[np.argmin(losses)], rel=1e-2)


def test_the_temperature_keeps_its_bounds():
    always = [answer(("Art", 1.0), ("Cars", 0.0))] * 4
    assert fit_temperature(Choices.of(always, [True] * 4, tier1=True)) < 0.1
    assert fit_temperature(Choices.of(always, [False] * 4, tier1=True)) == pytest.approx(50)


def test_scaling_mends_what_is_too_sure():
    choices = drawn(2_000, 3.0, seed=2)
    found = Calibration.of(choices)
    report = found.to_json()
    assert report["ece_unscaled"] > 0.15 > 0.06 > report["ece"]
    assert report["ece_equal_mass_unscaled"] > 0.15 > 0.06 > report["ece_equal_mass"]
    assert report["ece"] < 2.5 * report["ece_if_calibrated"]
    assert report["n"] == 2_000
    assert report["mean_probability"] == pytest.approx(report["right"], abs=0.03)


def test_each_half_is_judged_with_the_others_temperature():
    cold, hot = drawn(1_000, 0.5, seed=3), drawn(1_000, 4.0, seed=4)
    # Even pages are of one kind, odd pages of the other.
    mixed = Choices(
        *(
            np.stack([one, other], axis=1).reshape(2_000, *one.shape[1:])
            for one, other in ((cold._scores, hot._scores), (cold._same, hot._same), (cold.right, hot.right))
        )
    )
    found = Calibration.of(mixed)
    assert found.halves == pytest.approx((fit_temperature(hot), fit_temperature(cold)))
    assert found.halves[0] > 3 > 0.7 > found.halves[1]
    assert found.halves[1] < found.temperature < found.halves[0]
    for begin, part, temperature in ((0, cold, found.halves[0]), (1_000, hot, found.halves[1])):
        some = slice(begin, begin + 1_000)
        assert np.array_equal(found.scaled[some], part.probabilities(temperature))
        assert np.array_equal(found.unscaled[some], part.probabilities())
        assert np.array_equal(found.right[some], part.right)
    # Judged by themselves they would look calibrated; judged by the other half they do not.
    assert found.to_json()["ece"] > 0.15
