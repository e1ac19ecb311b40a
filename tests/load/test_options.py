"""Wrong options, each by its flag."""

from pathlib import Path
from typing import Any

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.load.options import Call, LoadOptions, Priority, ScheduleName
from bidtrie.requests import Ranker

STEP: dict[str, Any] = {
    "load_schedule": ScheduleName.STEP,
    "load_start": 10,
    "load_step": 10,
    "load_step_duration": 1,
}
LINE: dict[str, Any] = {"load_schedule": ScheduleName.LINE, "load_start": 10, "load_step": 10}


@pytest.mark.parametrize("options", [{}, STEP, LINE, {**LINE, "load_step": -1, "load_end": 5}])
def test_good_options(options: dict[str, Any]) -> None:
    LoadOptions(**options).check()


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"rps": 0}, "--rps"),
        ({"rps": float("nan")}, "--rps"),
        ({"duration": -1}, "--duration"),
        ({"total": 0}, "--total"),
        ({"warm_up": -1}, "--warm-up"),
        ({"seed": -1}, "--seed"),
        ({"repeat": 0}, "--repeat"),
        ({"top_k": 51}, "--top-k"),
        ({"tmax_ms": 0}, "--tmax-ms"),
        ({"timeout_ms": float("inf")}, "--timeout-ms"),
        ({"connections": 0}, "--connections"),
        ({"max_in_flight": 0}, "--max-in-flight"),
        ({"target": " "}, "--target"),
        ({"load_start": 5}, "--load-start"),
        ({**STEP, "load_step_duration": None}, "--load-step-duration"),
        ({**STEP, "load_step_duration": 0.01}, "--load-step-duration"),
        ({**STEP, "load_step": 0}, "--load-step"),
        ({**STEP, "load_start": None}, "--load-start"),
        ({**STEP, "load_end": 10}, "--load-end"),
        ({**STEP, "load_step": -1}, "--load-end"),
        ({**STEP, "load_step": -1, "load_end": 11}, "--load-end"),
        ({**LINE, "load_step_duration": 1}, "--load-step-duration"),
        ({"fresh": True, "repeat": 3}, "--fresh"),
        ({"fresh": True, "pages": Path("x")}, "--fresh"),
        ({"priority": Priority.BID}, "--priority"),
        ({"call": Call.GENERATE, "top_k": 3}, "--top-k"),
        ({"call": Call.GENERATE, "catalog": "c"}, "--catalog"),
        ({"call": Call.GENERATE, "ranker": Ranker.LLM}, "--ranker"),
        ({"call": Call.GENERATE, "pages": Path("x")}, "--pages"),
    ],
)
def test_wrong_options(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LoadOptions(**options).check()
    assert [violation.field for violation in caught.value.violations] == [flag]


def test_everything_that_is_wrong_is_said() -> None:
    with pytest.raises(InvalidInput) as caught:
        LoadOptions(rps=0, total=0, connections=0).check()
    assert [each.field for each in caught.value.violations] == ["--rps", "--total", "--connections"]


def test_the_budget_is_the_smaller_of_deadline_and_tmax() -> None:
    assert LoadOptions().budget_s == 1.0
    assert LoadOptions(call=Call.GENERATE).budget_s == 30.0
    assert LoadOptions(tmax_ms=100).budget_s == 0.1
    assert LoadOptions(tmax_ms=100, timeout_ms=50).budget_s == 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total": 6_000_000}, "--total: 6,000,000, expected 1 to 5,000,000"),
        ({"seed": -1}, "--seed: -1, expected 0 to 9,223,372,036,854,775,807"),
        ({"rps": 0.0005}, "--rps: 0.0005, expected 0.001 to 100,000"),
        ({"rps": float("inf")}, "--rps: inf, expected 0.001 to 100,000"),
    ],
)
def test_limits_are_written_as_people_write_them(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LoadOptions(**options).check()
    assert str(caught.value) == message
