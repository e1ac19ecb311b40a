"""The report in ghz's shape."""

import json
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest
from bidtrie.load.ghz import ghz_status
from bidtrie.load.options import LoadOptions
from bidtrie.load.records import Records
from bidtrie.load.report import LoadReport
from load.test_statistics import random_records

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEYS = {
    "date", "endReason", "options", "count", "total", "average", "fastest", "slowest", "rps", "errorDistribution",
    "statusCodeDistribution", "latencyDistribution", "histogram", "details",
}  # fmt: skip


def report(records: Records, **options: Any) -> LoadReport:
    return LoadReport(LoadOptions(**options), 5, DATE, False, 9.5, records)


@pytest.fixture
def records() -> Records:
    drawn = random_records(4)
    errors = {(8, "the queue is full"): 3, (8, "full"): 1}
    return Records(drawn.intended, drawn.sent, drawn.done, drawn.status, drawn.answer, drawn.answers, errors)


def test_keys_and_units(records: Records) -> None:
    found = json.loads(json.dumps(report(records, rps=200, duration=9.5).to_json()))
    assert found.keys() == KEYS | {"bidtrie"}
    took = (records.done - records.intended)[records.status >= 0]
    good = np.sort((records.done - records.intended)[records.status == 0])
    assert found["count"] == len(took)
    assert found["total"] == pytest.approx(np.nanmax(records.done) * 1e9, abs=1)
    assert found["average"] == pytest.approx(took.mean() * 1e9, abs=1)
    assert found["fastest"] == pytest.approx(good[0] * 1e9, abs=1)
    assert found["slowest"] == pytest.approx(good[-1] * 1e9, abs=1)
    assert found["rps"] == pytest.approx(len(took) / np.nanmax(records.done))
    for key in ("count", "total", "average", "fastest", "slowest"):
        assert type(found[key]) is int, key
    assert found["statusCodeDistribution"] == {
        ghz_status(code): int((records.status == code).sum()) for code in (0, 3, 4, 8, 14)
    }
    assert found["errorDistribution"] == {
        "rpc error: code = ResourceExhausted desc = the queue is full": 3,
        "rpc error: code = ResourceExhausted desc = full": 1,
    }
    assert found["options"]["call"] == "bidtrie.v1.Targeting/Target"
    assert found["options"]["duration"] == 9_500_000_000
    assert found["details"] == []
    assert datetime.fromisoformat(found["date"]) == DATE


def test_the_latency_distribution(records: Records) -> None:
    found = report(records).to_json()["latencyDistribution"]
    good = (records.done - records.intended)[records.status == 0]
    assert [row["percentage"] for row in found] == [10, 25, 50, 75, 90, 95, 99, 99.9]
    for row in found:
        assert row.keys() == {"percentage", "latency"}
        rank = np.percentile(good, row["percentage"], method="inverted_cdf")
        assert row["latency"] == pytest.approx(rank * 1e9, abs=1)


def test_the_histogram(records: Records) -> None:
    found = report(records).to_json()["histogram"]
    good = (records.done - records.intended)[records.status == 0]
    assert len(found) == 11
    assert all(row.keys() == {"mark", "count", "frequency"} for row in found)
    marks = [row["mark"] for row in found]
    assert (marks[0], marks[-1]) == (good.min(), pytest.approx(good.max()))
    before = -1.0
    for row in found[:-1]:
        assert row["count"] == ((good > before) & (good <= row["mark"])).sum()
        before = row["mark"]
    assert sum(row["count"] for row in found) == len(good)
    assert sum(row["frequency"] for row in found) == pytest.approx(1)


def test_details_are_asked_for(records: Records) -> None:
    found = report(records, warm_up=2.0).to_json(details=True)["details"]
    assert len(found) == (records.status >= 0).sum()
    assert all(row.keys() == {"timestamp", "latency", "error", "status"} for row in found)
    first = int(np.flatnonzero(records.status >= 0)[0])
    # The date is when the warm-up began.
    sent = datetime.fromisoformat(found[0]["timestamp"]) - DATE
    assert sent.total_seconds() == pytest.approx(2.0 + records.intended[first], abs=1e-5)
    assert {row["status"] for row in found if not row["error"]} == {"OK"}


def test_no_answer_at_all() -> None:
    drawn = random_records(0, 3)
    nothing = np.full(3, np.nan)
    records = Records(
        drawn.intended, nothing, nothing, np.full(3, -3, np.int8), np.full(3, -1, np.int16), (), {}
    )
    found = json.loads(json.dumps(report(records).to_json()))
    assert found["count"] == found["total"] == found["average"] == found["slowest"] == 0
    assert found["histogram"] == found["latencyDistribution"] == []


def test_statuses_as_go_writes_them() -> None:
    names = {code.name: ghz_status(code.value[0]) for code in grpc.StatusCode}
    assert names["OK"] == "OK"
    assert names["CANCELLED"] == "Canceled"
    assert names["RESOURCE_EXHAUSTED"] == "ResourceExhausted"
    assert names["DEADLINE_EXCEEDED"] == "DeadlineExceeded"
    assert names["UNAUTHENTICATED"] == "Unauthenticated"


def test_our_own_figures(records: Records) -> None:
    whole = report(records, tmax_ms=50)
    found = json.loads(json.dumps(whole.to_json()))["bidtrie"]
    assert found["seed"] == 5
    assert found["budget_ms"] == 50
    assert found["goodput_rps"] == whole.summary.goodput_rps
    assert found["latency_ms"]["RESOURCE_EXHAUSTED"].keys() == {
        "count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max",
    }  # fmt: skip
    assert found["answers"]["cached"]["true"]["count"] == whole.summary.answers["cached"]["true"].count
    assert found["send_lag_ms"].keys() >= {"p50", "p99", "max"}
    assert len(found["series"]) == 10
    assert found["series"][3]["offered"] == whole.summary.series[3].offered
