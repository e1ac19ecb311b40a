"""Arrival times against closed forms, and the Poisson process against what defines it."""

import math
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import InvalidInput
from bidtrie.load.arrivals import Plan, make_plan
from bidtrie.load.options import Arrivals, LoadOptions, ScheduleName
from bidtrie.load.schedule import Floats, Piece, Schedule, make_schedule
from hypothesis import given
from hypothesis import strategies as st

STEP: dict[str, Any] = {"load_schedule": ScheduleName.STEP, "load_step_duration": 2.0}
LINE: dict[str, Any] = {"load_schedule": ScheduleName.LINE}


def plan(seed: int = 1, **options: Any) -> Plan:
    checked = LoadOptions(**options)
    checked.check()
    return make_plan(checked, np.random.default_rng(seed))


def constant(**options: Any) -> Floats:
    return plan(arrivals=Arrivals.CONSTANT, **options).times


def test_const() -> None:
    np.testing.assert_allclose(constant(rps=8, duration=2), np.arange(16) / 8)


def test_rounding_adds_no_request() -> None:
    # In floating point 0.3 x 10 and 0.7 x 10 miss their whole numbers by one bit.
    assert len(constant(rps=0.3, duration=10)) == 3
    assert len(constant(rps=0.7, duration=10)) == 7
    assert len(constant(rps=1000, duration=86.4)) == 86_400
    for rps in range(1, 1000):
        assert len(constant(rps=rps / 7, duration=21 * 7)) == rps * 21


@pytest.mark.parametrize(
    ("start", "step", "end", "rates"),
    [
        (10, 10, None, [10, 20, 30, 40]),
        (10, 10, 25, [10, 20, 25, 25]),
        (40, -15, 10, [40, 25, 10, 10]),
        (40, -25, 10, [40, 15, 10, 10]),
    ],
)
def test_step(start: float, step: float, end: float | None, rates: list[int]) -> None:
    found = constant(**STEP, load_start=start, load_step=step, load_end=end, duration=8)
    expected = [2 * number + np.arange(2 * rate) / rate for number, rate in enumerate(rates)]
    np.testing.assert_allclose(found, np.concatenate(expected))


def test_line() -> None:
    found = constant(**LINE, load_start=5, load_step=4, duration=10)
    # 5 t + 4 t²/2 = n
    counts = np.arange(250)
    np.testing.assert_allclose(found, (-5 + np.sqrt(25 + 8 * counts)) / 4)


def test_line_that_ends() -> None:
    found = constant(**LINE, load_start=100, load_step=-20, load_end=20, duration=10)
    # 240 in the first 4 seconds: 100 t - 20 t²/2 = n; then 20 a second.
    falling = np.arange(240)
    fall = (100 - np.sqrt(100**2 - 40 * falling)) / 20
    np.testing.assert_allclose(found, np.concatenate([fall, 4 + np.arange(120) / 20]))


def test_closed_forms_would_notice_a_wrong_schedule() -> None:
    line = constant(**LINE, load_start=5, load_step=4, duration=10)
    stairs = constant(**STEP | {"load_step_duration": 1.0}, load_start=5, load_step=4, duration=10)
    count = min(len(line), len(stairs))
    assert not np.allclose(line[:count], stairs[:count])


@given(
    st.lists(
        st.tuples(st.floats(0.1, 10), st.floats(0.1, 1000), st.floats(0.1, 1000)), min_size=1, max_size=8
    ),
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
)
def test_time_of_is_the_inverse_of_expected(
    parts: list[tuple[float, float, float]], times: list[float]
) -> None:
    pieces, at = [], 0.0
    for length, rate, end in parts:
        pieces.append(Piece(at, rate, (end - rate) / length))
        at += length
    schedule = Schedule([*pieces, Piece(at, 7.0)])
    np.testing.assert_allclose(schedule.time_of(schedule.expected(times)), times, rtol=1e-6, atol=1e-6)


def test_what_ends_first_ends_the_run() -> None:
    by_total = plan(arrivals=Arrivals.CONSTANT, rps=10, total=5, duration=10)
    assert (len(by_total.times), by_total.window_s) == (5, 0.5)
    by_duration = plan(arrivals=Arrivals.CONSTANT, rps=10, total=500, duration=10)
    assert (len(by_duration.times), by_duration.window_s) == (100, 10)
    assert len(constant(rps=10, total=500)) == 500
    assert len(constant(rps=10)) == 100


def test_a_total_without_duration_climbs_every_step() -> None:
    found = constant(**STEP, load_start=10, load_step=10, total=200)
    # 20, 40, 60 in the first three steps, and 80 of the fourth.
    assert found[120] == pytest.approx(6.0)
    assert found[-1] == pytest.approx(8 - 1 / 40)


def test_warm_up_runs_at_the_first_rate() -> None:
    found = plan(arrivals=Arrivals.CONSTANT, **LINE, load_start=10, load_step=10, duration=2, warm_up=3)
    assert found.warm_up == 30
    np.testing.assert_allclose(found.times[:30], -3 + np.arange(30) / 10)
    assert found.times[30] == 0


POISSON: list[dict[str, Any]] = [
    {"rps": 500.0},
    {**LINE, "load_start": 20.0, "load_step": 96.0},
    {**STEP, "load_start": 100.0, "load_step": 200.0},
]


def looks_poisson(times: Floats, schedule: Schedule, duration: float) -> bool:
    """Whether the count is within five standard deviations of what is expected, and gaps, in counts, are exponential.

    For n gaps of mean and standard deviation 1 their mean deviates by 1/sqrt(n), their standard deviation by sqrt(2/n).
    """
    expected = float(schedule.expected(duration))
    gaps = np.diff(schedule.expected(times))
    tolerance = 5 / math.sqrt(len(gaps))
    return bool(
        abs(len(times) - expected) < 5 * math.sqrt(expected)
        and abs(gaps.mean() - 1) < tolerance
        and abs(gaps.std() - 1) < tolerance * math.sqrt(2)
    )


@pytest.mark.parametrize("options", POISSON, ids=["const", "line", "step"])
@pytest.mark.parametrize("seed", range(3))
def test_poisson_arrivals(options: dict[str, Any], seed: int) -> None:
    found = plan(seed, **options, duration=10)
    schedule = make_schedule(LoadOptions(**options, duration=10))
    assert looks_poisson(found.times, schedule, 10)
    assert (np.diff(found.times) >= 0).all()
    assert found.times[-1] < 10
    # Negative controls: evenly spaced ones, and ones of another rate, do not pass.
    assert not looks_poisson(constant(**options, duration=10), schedule, 10)
    assert not looks_poisson(found.times[::2], schedule, 10)


def test_poisson_with_a_total_is_exact_and_its_rate_right() -> None:
    found = plan(rps=100, total=10_000)
    assert len(found.times) == 10_000
    assert found.window_s > found.times[-1]
    assert 10_000 / found.window_s == pytest.approx(100, rel=0.05)


def test_the_seed_decides() -> None:
    np.testing.assert_array_equal(plan(7, duration=2).times, plan(7, duration=2).times)
    assert not np.array_equal(plan(7, total=50).times, plan(8, total=50).times)


@pytest.mark.parametrize(
    ("options", "flag", "words"),
    [
        ({"rps": 100_000, "duration": 100}, "--duration", "expected at most 5,000,000"),
        ({"rps": 0.001, "total": 1000}, "--total", "takes longer"),
        ({"rps": 0.001, "duration": 0.1}, "--duration", "makes no request"),
    ],
)
def test_absurd_plans(options: dict[str, Any], flag: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        plan(**options)
    assert caught.value.violations[0].field == flag
