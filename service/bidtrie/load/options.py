"""What load to put on which server. Field names are those of the flags of `bidtrie load`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bidtrie.errors import InvalidInput, Violation
from bidtrie.requests import Ranker

MAX_RPS = 100_000.0
MAX_SECONDS = 86_400.0
MAX_REQUESTS = 5_000_000
MIN_STEP_SECONDS = 0.1
DEFAULT_SECONDS = 10.0
_MAX_TIMEOUT_MS = 600_000.0
_MAX_TMAX_MS = 60_000
_MAX_TOP_K = 50


class Call(StrEnum):
    """Which method is called."""

    TARGET = "target"
    GENERATE = "generate"


class ScheduleName(StrEnum):
    """How the rate changes over time, as ghz names it."""

    CONST = "const"
    STEP = "step"
    LINE = "line"


class Arrivals(StrEnum):
    """How requests are spread around the rate."""

    POISSON = "poisson"
    CONSTANT = "constant"


class Priority(StrEnum):
    """Whose work goes first, as creative.proto names it."""

    BID = "bid"
    PREGENERATION = "pregeneration"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Times are seconds unless the name says milliseconds, rates are requests a second."""

    target: str = "127.0.0.1:50051"
    call: Call = Call.TARGET

    load_schedule: ScheduleName = ScheduleName.CONST
    rps: float = 50.0
    """The rate of CONST."""
    load_start: float | None = None
    """The first rate of STEP and LINE."""
    load_end: float | None = None
    """The rate at which STEP and LINE stop changing; required where they fall."""
    load_step: float | None = None
    """STEP: what is added after every `load_step_duration`; LINE: what is added in a second, evenly."""
    load_step_duration: float | None = None
    duration: float | None = None
    """Seconds in which requests are sent, the warm-up not counted; with `total`, what comes first ends the run."""
    total: int | None = None
    arrivals: Arrivals = Arrivals.POISSON
    seed: int | None = None
    """Draws arrivals and requests; None: a new one, which is reported, so that no earlier run filled the cache."""
    warm_up: float = 0.0
    """Seconds at the first rate before the run; sent, not counted."""

    pages: Path | None = None
    """Labelled pages as `bidtrie eval targeting` reads them, sent in the file's order, over and over."""
    fresh: bool = False
    """Every request is one that was never sent before; what happens without `pages` and `repeat`."""
    repeat: int | None = None
    """This many distinct requests, drawn by Zipf's law: the k-th is sent 1/k times as often as the first."""

    catalog: str = ""
    top_k: int | None = None
    ranker: Ranker = Ranker.AUTO
    priority: Priority | None = None
    """Of texts; None leaves it to the server, which takes BID."""
    tmax_ms: int | None = None
    timeout_ms: float | None = None
    """gRPC deadline, from when a request is really sent. None: what the clients use for this call."""
    allow_partial: bool = True
    allow_fallback: bool = True

    connections: int = 1
    max_in_flight: int = 1_000
    """Requests waiting for their answer; what would exceed it is not sent, and counted as dropped."""

    @property
    def timeout_s(self) -> float:
        """gRPC deadline in seconds."""
        # Here, since the clients bring gRPC with them.
        from bidtrie.client.channel import GENERATE_TIMEOUT_MS, TARGET_TIMEOUT_MS

        default = TARGET_TIMEOUT_MS if self.call is Call.TARGET else GENERATE_TIMEOUT_MS
        return (default if self.timeout_ms is None else self.timeout_ms) / 1e3

    @property
    def budget_s(self) -> float:
        """Seconds from the intended time after which an answer is late: the smaller of deadline and `tmax_ms`."""
        return self.timeout_s if self.tmax_ms is None else min(self.timeout_s, self.tmax_ms / 1e3)

    @property
    def first_rate(self) -> float:
        """The rate at the start, requests a second."""
        return self.rps if self.load_start is None else self.load_start

    def check(self) -> None:
        """Raise InvalidInput with everything that is wrong, by flag."""
        problems: list[Violation] = []

        def expect(good: bool, flag: str, expected: str) -> None:
            if not good:
                problems.append(Violation(flag, expected))

        def between(flag: str, value: float | None, least: float, most: float) -> None:
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                expected = f"expected {_number(least)} to {_number(most)}"
                problems.append(Violation(flag, f"{_number(value)}, {expected}"))

        between("--rps", self.rps, 0.001, MAX_RPS)
        between("--load-start", self.load_start, 0.001, MAX_RPS)
        between("--load-end", self.load_end, 0.001, MAX_RPS)
        between("--load-step", self.load_step, -MAX_RPS, MAX_RPS)
        between("--load-step-duration", self.load_step_duration, MIN_STEP_SECONDS, MAX_SECONDS)
        between("--duration", self.duration, 0.001, MAX_SECONDS)
        between("--total", self.total, 1, MAX_REQUESTS)
        between("--warm-up", self.warm_up, 0, MAX_SECONDS)
        between("--seed", self.seed, 0, 2**63 - 1)
        between("--repeat", self.repeat, 1, MAX_REQUESTS)
        between("--top-k", self.top_k, 1, _MAX_TOP_K)
        between("--tmax-ms", self.tmax_ms, 1, _MAX_TMAX_MS)
        between("--timeout-ms", self.timeout_ms, 1, _MAX_TIMEOUT_MS)
        between("--connections", self.connections, 1, 1_000)
        between("--max-in-flight", self.max_in_flight, 1, 1_000_000)
        expect(bool(self.target.strip()), "--target", "is empty, expected HOST:PORT")
        self._check_schedule(expect)
        expect(
            not (self.fresh and self.repeat is not None),
            "--fresh",
            "cannot stand beside --repeat: requests are either new or repeated",
        )
        expect(
            not (self.fresh and self.pages is not None),
            "--fresh",
            "cannot stand beside --pages: a file's pages are sent again and again",
        )
        if self.call is Call.GENERATE:
            only = "is for --call target only"
            expect(self.pages is None, "--pages", only)
            expect(not self.catalog, "--catalog", only)
            expect(self.top_k is None, "--top-k", only)
            expect(self.ranker is Ranker.AUTO, "--ranker", only)
        else:
            expect(self.priority is None, "--priority", "is for --call generate only")
        if problems:
            raise InvalidInput(problems)

    def _check_schedule(self, expect: Callable[[bool, str, str], None]) -> None:
        given = {
            "--load-start": self.load_start,
            "--load-end": self.load_end,
            "--load-step": self.load_step,
            "--load-step-duration": self.load_step_duration,
        }
        name = self.load_schedule
        if name is ScheduleName.CONST:
            for flag, value in given.items():
                expect(value is None, flag, "is for --load-schedule step and line only")
            return
        expect(self.load_start is not None, "--load-start", f"is required by --load-schedule {name}")
        expect(self.load_step not in (None, 0), "--load-step", f"other than 0 is required by {name}")
        if name is ScheduleName.STEP:
            expect(self.load_step_duration is not None, "--load-step-duration", "is required by step")
        else:
            expect(self.load_step_duration is None, "--load-step-duration", "is for step only")
        start, step, end = self.load_start, self.load_step, self.load_end
        if start is None or not step:
            return
        if end is None:
            expect(step > 0, "--load-end", "is required where the rate falls")
        else:
            direction = "above" if step > 0 else "below"
            good = end > start if step > 0 else end < start
            expect(good, "--load-end", f"{end:g}, expected a rate {direction} --load-start ({start:g})")


def _number(value: float) -> str:
    """As people write it: thousands apart, no exponent, no digits behind the point that say nothing."""
    if not math.isfinite(value):
        return str(value)
    return f"{int(value):,}" if value == int(value) else f"{value:,.15g}"
