"""Figures against numpy and plain loops."""

import math
from typing import Any

import numpy as np
import pytest
from bidtrie.load.records import DROPPED, NOT_SENT, UNFINISHED, Answer, Records
from bidtrie.load.statistics import PERCENTAGES, Summary, latency, nearest_rank, summarize

BUDGET_S, WINDOW_S = 0.05, 9.5
ANSWERS = (
    Answer("SOURCE_LLM", False, False, False, "full"),
    Answer("SOURCE_LLM", True, False, False, "short"),
    Answer("SOURCE_LLM", False, False, True, "full"),
    Answer("SOURCE_RETRIEVER", False, True, False, ""),
)


def random_records(seed: int, count: int = 2_000) -> Records:
    random = np.random.default_rng(seed)
    intended = np.sort(random.uniform(0, WINDOW_S, count))
    codes = [0, 0, 0, 8, 4, 14, 3, DROPPED, UNFINISHED, NOT_SENT]
    status = random.choice(codes, count).astype(np.int8)
    sent = np.where(
        (status == DROPPED) | (status == NOT_SENT), np.nan, intended + random.exponential(1e-4, count)
    )
    done = np.where(status >= 0, intended + random.exponential(0.04, count), np.nan)
    answer = np.where(status == 0, random.integers(len(ANSWERS), size=count), -1).astype(np.int16)
    return Records(intended, sent, done, status, answer, ANSWERS, {})


@pytest.fixture(params=range(3))
def records(request: pytest.FixtureRequest) -> Records:
    return random_records(request.param)


def summary(records: Records) -> Summary:
    return summarize(records, budget_s=BUDGET_S, window_s=WINDOW_S)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101, 1_000, 1_003])
def test_percentiles_are_nearest_ranks(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    in_order = sorted(values.tolist())
    for percentage in (0, 10, 25, *PERCENTAGES, 100):
        # In whole thousandths, where rounding cannot move a rank.
        rank = max(1, -(-round(percentage * 10) * count // 1000))
        assert nearest_rank(values, [percentage]) == [in_order[rank - 1]]
        if percentage != 99.9:  # where numpy's own rounding takes the next value of 1,000
            assert nearest_rank(values, [percentage]) == [
                np.percentile(values, percentage, method="inverted_cdf")
            ]


def test_latency() -> None:
    values = np.random.default_rng(0).exponential(0.02, 5_000)
    found = latency(values)
    assert found is not None
    assert found.count == 5_000
    assert found.mean == pytest.approx(values.mean() * 1e3)
    assert found.max == values.max() * 1e3
    # Close to interpolated percentiles, which are another definition; not equal to them.
    np.testing.assert_allclose(found.percentiles, np.percentile(values * 1e3, PERCENTAGES), rtol=0.05)
    assert (found.p50, found.p99) == (found.percentiles[0], found.percentiles[3])
    assert latency(values[:0]) is None


def test_counts(records: Records) -> None:
    found = summary(records)
    status = records.status.tolist()
    took = (records.done - records.intended).tolist()
    in_time = sum(1 for code, seconds in zip(status, took, strict=True) if code == 0 and seconds <= BUDGET_S)
    assert found.offered == len(status) - status.count(NOT_SENT)
    assert found.sent == found.offered - found.dropped
    assert found.ok == status.count(0)
    assert found.good == in_time
    assert found.late == status.count(0) - in_time
    assert found.rejected == status.count(8)
    assert found.expired == status.count(4)
    assert found.failed == status.count(14) + status.count(3)
    assert found.dropped == status.count(DROPPED)
    assert found.unfinished == status.count(UNFINISHED)
    parts = found.ok + found.rejected + found.expired + found.failed + found.dropped + found.unfinished
    assert found.offered == parts
    assert found.goodput_rps == pytest.approx(in_time / WINDOW_S)
    assert found.offered_rps == pytest.approx(found.offered / WINDOW_S)


def test_latencies_by_status(records: Records) -> None:
    found = summary(records).latency_ms
    names = {
        "OK": 0,
        "INVALID_ARGUMENT": 3,
        "DEADLINE_EXCEEDED": 4,
        "RESOURCE_EXHAUSTED": 8,
        "UNAVAILABLE": 14,
    }
    assert found.keys() == names.keys()
    for name, code in names.items():
        expected = (records.done - records.intended)[records.status == code] * 1e3
        assert found[name].count == len(expected)
        assert found[name].p99 == pytest.approx(np.percentile(expected, 99, method="inverted_cdf"))


def test_answers_by_kind(records: Records) -> None:
    found = summary(records).answers
    assert {field: set(groups) for field, groups in found.items()} == {
        "source": {"SOURCE_LLM", "SOURCE_RETRIEVER"},
        "partial": {"false", "true"},
        "fallback": {"false", "true"},
        "cached": {"false", "true"},
        "plan": {"full", "short"},
    }
    cached = found["cached"]["true"]
    rows = [index for index, number in enumerate(records.answer) if number == 2]
    assert cached.count == len(rows)
    assert cached.good == sum(records.done[row] - records.intended[row] <= BUDGET_S for row in rows)
    assert cached.goodput_rps == pytest.approx(cached.good / WINDOW_S)
    total = summary(records)
    for field in ("source", "partial", "fallback", "cached"):
        assert sum(group.count for group in found[field].values()) == total.ok
        assert sum(group.good for group in found[field].values()) == total.good


def test_the_series(records: Records) -> None:
    found = summary(records)
    assert [second.second for second in found.series] == list(range(10))
    assert [second.width_s for second in found.series] == [1.0] * 9 + [0.5]
    for second in found.series:
        rows = [row for row, at in enumerate(records.intended) if math.floor(at) == second.second]
        codes = [int(records.status[row]) for row in rows]
        took = np.array([records.done[row] - records.intended[row] for row in rows])
        assert second.offered == len(codes) - codes.count(NOT_SENT)
        assert second.ok == codes.count(0)
        good = np.array(codes) == 0
        assert second.late == (took[good] > BUDGET_S).sum()
        assert second.rejected == codes.count(8)
        assert second.expired == codes.count(4)
        assert second.failed == codes.count(14) + codes.count(3)
        assert second.dropped == codes.count(DROPPED)
        assert second.p50_ms == pytest.approx(np.percentile(took[good] * 1e3, 50, method="inverted_cdf"))
        assert second.p99_ms == pytest.approx(np.percentile(took[good] * 1e3, 99, method="inverted_cdf"))


def test_the_send_lag(records: Records) -> None:
    found = summary(records).send_lag_ms
    assert found is not None
    lag = (records.sent - records.intended)[~np.isnan(records.sent)] * 1e3
    assert found.count == len(lag)
    assert found.max == pytest.approx(lag.max())


@pytest.mark.parametrize("window_s", [0.0, 3.0])
def test_nothing_was_answered(window_s: float) -> None:
    records = random_records(0, 5)
    none: dict[str, Any] = {name: np.full(5, np.nan) for name in ("sent", "done")}
    status = np.full(5, NOT_SENT, dtype=np.int8)
    empty = Records(records.intended, **none, status=status, answer=records.answer, answers=(), errors={})
    found = summarize(empty, budget_s=BUDGET_S, window_s=window_s)
    assert (found.offered, found.ok, found.goodput_rps) == (0, 0, 0.0)
    assert found.latency_ms == {}
    assert found.send_lag_ms is None
    assert len(found.series) == window_s
