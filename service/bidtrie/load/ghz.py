"""A run in the shape of ghz's JSON report, so that what reads those reads ours.

As there, times are nanoseconds, but the histogram's marks are seconds; the average is over every answer, and what is
sorted (fastest, slowest, percentiles, histogram) over those with status OK. Unlike there, latencies count from the
intended time of sending.
"""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from bidtrie.load.generator import METHODS
from bidtrie.load.options import LoadOptions, ScheduleName
from bidtrie.load.records import Records
from bidtrie.load.schedule import Floats
from bidtrie.load.statistics import nearest_rank, status_name

PERCENTAGES = (10, 25, 50, 75, 90, 95, 99, 99.9)
_BUCKETS = 10


def ghz_status(code: int) -> str:
    """A status as Go writes it: `ResourceExhausted`."""
    special = {"OK": "OK", "CANCELLED": "Canceled"}
    name = status_name(code)
    return special.get(name) or name.title().replace("_", "")


def ghz_report(
    options: LoadOptions, date: datetime, records: Records, *, interrupted: bool, details: bool
) -> dict[str, Any]:
    """ghz's keys; `details` is empty unless wanted."""
    answered = records.status >= 0
    took = records.latency
    good = np.sort(took[records.status == 0])
    count = int(answered.sum())
    total_s = float(records.done[answered].max()) if count else 0.0
    errors: Counter[str] = Counter()
    for (code, message), times in records.errors.items():
        errors[_error(code, message)] += times
    statuses = Counter(ghz_status(code) for code in records.status[answered].tolist())
    return {
        "date": date.isoformat(timespec="seconds"),
        "endReason": "cancel" if interrupted else "normal",
        "options": _options(options),
        "count": count,
        "total": _ns(total_s),
        "average": _ns(float(took[answered].mean())) if count else 0,
        "fastest": _ns(float(good[0])) if good.size else 0,
        "slowest": _ns(float(good[-1])) if good.size else 0,
        "rps": count / total_s if total_s > 0 else 0.0,
        "errorDistribution": dict(errors),
        "statusCodeDistribution": dict(statuses),
        "latencyDistribution": _percentiles(good),
        "histogram": _histogram(good),
        "details": _details(date + timedelta(seconds=options.warm_up), records) if details else [],
    }


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _error(code: int, message: str) -> str:
    return f"rpc error: code = {ghz_status(code)} desc = {message}"


def _options(options: LoadOptions) -> dict[str, Any]:
    named: dict[str, Any] = {
        "call": METHODS[options.call].removeprefix("/"),
        "host": options.target,
        "insecure": True,
        "async": True,
        "connections": options.connections,
        "timeout": _ns(options.timeout_s),
        "load-schedule": options.load_schedule.value,
        "rps": options.rps if options.load_schedule is ScheduleName.CONST else None,
        "load-start": options.load_start,
        "load-end": options.load_end,
        "load-step": options.load_step,
        "load-step-duration": None if options.load_step_duration is None else _ns(options.load_step_duration),
        "total": options.total,
        "duration": None if options.duration is None else _ns(options.duration),
    }
    return {name: value for name, value in named.items() if value is not None}


def _percentiles(good: Floats) -> list[dict[str, float]]:
    if not good.size:
        return []
    found = zip(PERCENTAGES, nearest_rank(good, PERCENTAGES), strict=True)
    return [{"percentage": percentage, "latency": _ns(value)} for percentage, value in found]


def _histogram(good: Floats) -> list[dict[str, float]]:
    """Eleven marks from the fastest to the slowest; a bucket holds what is above the mark before it, up to its own."""
    if not good.size:
        return []
    marks = np.linspace(good[0], good[-1], _BUCKETS + 1)
    upto = np.searchsorted(good, marks, side="right")
    upto[-1] = len(good)  # however the last mark was rounded
    counts = np.diff(upto, prepend=0).tolist()
    return [
        {"mark": mark, "count": count, "frequency": count / len(good)}
        for mark, count in zip(marks.tolist(), counts, strict=True)
    ]


def _details(start: datetime, records: Records) -> list[dict[str, Any]]:
    """A row an answer. ghz's `error` holds the whole message; here it is the status alone."""
    rows = []
    for index in np.flatnonzero(records.status >= 0).tolist():
        code = int(records.status[index])
        sent = start + timedelta(seconds=float(records.intended[index]))
        took = float(records.latency[index])
        error = f"rpc error: code = {ghz_status(code)}" if code else ""
        rows.append(
            {"timestamp": sent.isoformat(), "latency": _ns(took), "error": error, "status": ghz_status(code)}
        )
    return rows
