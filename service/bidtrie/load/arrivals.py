"""When the requests of a run are to be sent."""

import math
from dataclasses import dataclass

import numpy as np

from bidtrie.errors import InvalidInput
from bidtrie.load.options import DEFAULT_SECONDS, MAX_REQUESTS, MAX_SECONDS, Arrivals, LoadOptions
from bidtrie.load.schedule import Floats, Schedule, make_schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """Intended times in order, seconds from the start of what is counted: those of the warm-up are below 0."""

    times: Floats
    warm_up: int
    """The first so many belong to the warm-up."""
    window_s: float
    """From 0 to the end of the run: rates are counts over this."""


def make_plan(options: LoadOptions, random: np.random.Generator) -> Plan:
    """Arrivals for checked options. Raises InvalidInput where there would be too many, or none."""
    schedule = make_schedule(options)
    duration = options.duration
    if duration is None:
        duration = DEFAULT_SECONDS if options.total is None else MAX_SECONDS
    warm_up_count = options.first_rate * options.warm_up
    most = min(float(schedule.expected(duration)), options.total or math.inf)
    if most + warm_up_count > MAX_REQUESTS:
        raise InvalidInput.of(
            "--duration", f"makes {most + warm_up_count:,.0f} requests, expected at most {MAX_REQUESTS:,}"
        )
    times, window_s = _arrivals(schedule, options.arrivals, random, duration, options.total)
    if not times.size:
        raise InvalidInput.of("--duration", f"{duration:g} s at this rate makes no request")
    if options.duration is None and options.total is not None and len(times) < options.total:
        raise InvalidInput.of("--total", f"takes longer than {MAX_SECONDS:,.0f} s at this rate")
    if not options.warm_up:
        return Plan(times, 0, window_s)
    steady = make_schedule(LoadOptions(rps=options.first_rate))
    before, _ = _arrivals(steady, options.arrivals, random, options.warm_up, None)
    return Plan(np.concatenate([before - options.warm_up, times]), len(before), window_s)


def _arrivals(
    schedule: Schedule, kind: Arrivals, random: np.random.Generator, duration: float, total: int | None
) -> tuple[Floats, float]:
    """Times below `duration`, at most `total`; and when the run ends: then, or when one more would have come."""
    expected = float(schedule.expected(duration))
    if kind is Arrivals.CONSTANT:
        many = math.ceil(expected)
        counts = np.arange(many + 1 if total is None else min(many, total) + 1, dtype=np.float64)
    else:
        counts = _poisson_counts(random, expected, total)
    times = schedule.time_of(counts)
    # Rounding must not add a request at the very end.
    fits = int(np.searchsorted(times, duration * (1 - 1e-12), side="left"))
    if total is not None and fits > total:
        return times[:total], float(times[total])
    return times[:fits], duration


def _poisson_counts(random: np.random.Generator, expected: float, total: int | None) -> Floats:
    """Arrivals of a Poisson process at rate 1 until past `expected`, or one more than `total` of them."""
    counts = np.zeros(0)
    while not counts.size or (counts[-1] <= expected and (total is None or len(counts) <= total)):
        most = int(expected + 6 * math.sqrt(expected)) + 20
        if total is not None:
            most = min(most, total + 1)
        last = counts[-1] if counts.size else 0.0
        counts = np.concatenate([counts, last + np.cumsum(random.exponential(size=most))])
    return counts
