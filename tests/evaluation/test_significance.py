"""Intervals and tests against published examples, exact enumeration, and what defines them."""

from fractions import Fraction
from itertools import product
from math import factorial, sqrt

import pytest
from bidtrie.evaluation.significance import Difference, Pairs, Z, mcnemar, newcombe, wilson

#: Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8: complete response
#: before and after consolidation therapy (Cavo et al. 2012); airway hyper-responsiveness before and after stem cell
#: transplantation (Bentur et al. 2009).
CAVO, BENTUR = Pairs(59, 6, 16, 80), Pairs(1, 1, 7, 12)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 679])
def test_wilson_holds_what_the_score_test_keeps(n: int) -> None:
    for right in {0, 1, n // 3, n // 2, n - 1, n}:
        low, high = wilson(right, n)
        assert 0 <= low <= right / n <= high <= 1
        for bound in (low, high):
            distance = abs(right / n - bound)
            assert distance == pytest.approx(Z * sqrt(bound * (1 - bound) / n), abs=1e-12)
        mirrored = wilson(n - right, n)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


@pytest.mark.parametrize(("pairs", "p"), [(CAVO, 0.0525), (BENTUR, 0.0703)])
def test_mcnemar_published(pairs: Pairs, p: float) -> None:
    assert mcnemar(pairs.only_first, pairs.only_second) == pytest.approx(p, abs=5e-5)


def test_mcnemar_is_the_share_of_all_ways_to_fall() -> None:
    for n in range(11):
        falls = [sum(way) for way in product((0, 1), repeat=n)]
        for first in range(n + 1):
            # As far from the middle, or farther.
            extreme = sum(abs(2 * fall - n) >= abs(2 * first - n) for fall in falls)
            assert mcnemar(first, n - first) == float(Fraction(extreme, len(falls)))


def test_mcnemar_takes_many_pages() -> None:
    assert mcnemar(0, 2_000) == pytest.approx(0.0, abs=1e-300)
    assert mcnemar(3_000, 3_000) == 1.0
    # The normal distribution, with 1/2 for continuity: 2 * (1 - Phi(2.5255))
    assert mcnemar(5_100, 4_900) == pytest.approx(0.0466, abs=2e-4)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    # The last: Altman and others, "Statistics with Confidence" (2000), the example of table 6.2.
    [(CAVO, -0.1186, -0.0046), (BENTUR, -0.5069, -0.0256), (Pairs(14, 5, 0, 22), 0.0115, 0.2265)],
)
def test_newcombe_published(pairs: Pairs, low: float, high: float) -> None:
    assert newcombe(pairs) == pytest.approx((low, high), abs=5e-5)


def test_pairs_are_not_two_samples() -> None:
    """Negative control: without the correlation the published interval is missed by far."""
    n = CAVO.n
    first, second = CAVO.both + CAVO.only_first, CAVO.both + CAVO.only_second
    low1, high2 = wilson(first, n)[0], wilson(second, n)[1]
    unpaired = (first - second) / n - sqrt((first / n - low1) ** 2 + (high2 - second / n) ** 2)
    assert unpaired < -0.16


def coverage(n: int, cells: tuple[float, float, float, float], *, narrow: float = 1.0) -> float:
    """How often the interval (times `narrow`) holds the truth: a sum over all tables of n pairs."""
    both, first, second, neither = cells
    truth, total = first - second, 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        ways = factorial(n) // (factorial(a) * factorial(b) * factorial(c) * factorial(d))
        low, high = newcombe(Pairs(a, b, c, d))
        at = (b - c) / n
        if at + narrow * (low - at) <= truth <= at + narrow * (high - at):
            total += ways * both**a * first**b * second**c * neither**d
    return total


@pytest.mark.parametrize("cells", [(0.4, 0.2, 0.1, 0.3), (0.5, 0.05, 0.15, 0.3), (0.25, 0.25, 0.25, 0.25)])
def test_newcombe_holds_the_truth_about_as_often_as_it_says(cells: tuple[float, float, float, float]) -> None:
    assert 0.94 < coverage(24, cells) < 0.985
    # Negative control: narrower intervals do not.
    assert coverage(24, cells, narrow=0.7) < 0.92


def test_newcombe_turns_with_the_rankers_and_stays_in_range() -> None:
    for pairs in (CAVO, BENTUR, Pairs(5, 0, 0, 0), Pairs(0, 0, 0, 5), Pairs(0, 4, 0, 0), Pairs(3, 0, 0, 3)):
        low, high = newcombe(pairs)
        turned = newcombe(Pairs(pairs.both, pairs.only_second, pairs.only_first, pairs.neither))
        assert (low, high) == pytest.approx((-turned[1], -turned[0]), abs=1e-12)
        difference = (pairs.only_first - pairs.only_second) / pairs.n
        assert -1 - 1e-12 <= low <= difference <= high <= 1 + 1e-12


def test_a_difference_of_hits() -> None:
    first, second = [True, True, False, True, False], [True, False, True, False, False]
    assert Pairs.of(first, second) == Pairs(1, 2, 1, 1)
    found = Difference.of(first, second).to_json()
    assert (found["difference_points"], found["only_first"], found["only_second"], found["p"]) == (
        20,
        2,
        1,
        1,
    )
    assert found["low"] == pytest.approx(100 * newcombe(Pairs(1, 2, 1, 1))[0])
    with pytest.raises(ValueError, match="zip"):
        Difference.of(first, second[1:])
