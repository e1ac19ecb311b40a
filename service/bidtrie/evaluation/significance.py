"""Whether a difference between shares is real: intervals of shares, and paired comparisons. All intervals are 95%.

The pages of an evaluation are a sample, and two rankers that answer the same pages are compared page by page: only
the pages where just one of them is right say anything about the difference.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

#: The standard normal distribution's 97.5% quantile.
Z = 1.959963984540054


def wilson(right: int, n: int) -> tuple[float, float]:
    """The score interval of a share of `right` among n, n > 0 (Wilson 1927, "Probable Inference, the Law of Succession,
    and Statistical Inference"): all shares that a score test would not reject.
    """
    share, z2 = right / n, Z * Z
    middle = share + z2 / (2 * n)
    reach = Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = (middle - reach) / (1 + z2 / n), (middle + reach) / (1 + z2 / n)
    # Exact at the ends, where rounding would leave the share outside.
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test: each discordant pair falls either way with probability 1/2.

    (McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".)
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = of_i = 1
    for i in range(fewer):
        of_i = of_i * (n - i) // (i + 1)
        ways += of_i
    return min(1.0, 2 * ways / (1 << n))


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many pages both, only one, or neither of two rankers got right."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Pairs":
        """Of two lists of hits, page by page. ValueError where they are not equally long."""
        pairs = list(zip(first, second, strict=True))
        return cls(
            *(pairs.count(each) for each in ((True, True), (True, False), (False, True), (False, False)))
        )

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


def newcombe(pairs: Pairs) -> tuple[float, float]:
    """The interval of the first share less the second, of at least one pair: method 10 of Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data", Statistics in Medicine
    17, 2635-2650. It joins the shares' Wilson intervals by squaring and adding, with a correlation that is corrected
    for continuity where it is positive.
    """
    n = pairs.n
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    share1, share2 = first / n, second / n
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    margins = first * (n - first) * second * (n - second)
    excess = float(pairs.both * pairs.neither - pairs.only_first * pairs.only_second)
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    correlation = excess / sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return sqrt(max(a * a + b * b - 2 * correlation * a * b, 0.0))

    difference = share1 - share2
    return (
        difference - reach(share1 - low1, high2 - share2),
        difference + reach(high1 - share1, share2 - low2),
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the first of two rankers is, in percentage points, with its interval; p is McNemar's."""

    difference_points: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Difference":
        """Of two lists of hits, page by page; at least one page."""
        pairs = Pairs.of(first, second)
        low, high = newcombe(pairs)
        points = 100 * (pairs.only_first - pairs.only_second) / pairs.n
        p = mcnemar(pairs.only_first, pairs.only_second)
        return cls(points, 100 * low, 100 * high, p, pairs.only_first, pairs.only_second)

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)
