"""Figures of a run. Percentiles are nearest ranks, as in ghz: the least latency that so many percent do not exceed."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt

from bidtrie.load.records import DROPPED, NOT_SENT, UNFINISHED, Answer, Records
from bidtrie.load.schedule import Floats

PERCENTAGES = (50.0, 90.0, 95.0, 99.0, 99.9)
_OK = 0
_EXPIRED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
_REJECTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of a set of requests; `percentiles` go with PERCENTAGES."""

    count: int
    mean: float
    percentiles: tuple[float, ...]
    max: float

    @property
    def p50(self) -> float:
        """The median, ms."""
        return self.percentiles[0]

    @property
    def p99(self) -> float:
        """The 99th percentile, ms."""
        return self.percentiles[3]

    def to_json(self) -> dict[str, float]:
        """Keys `count`, `mean`, `p50` … `p99.9`, `max`."""
        named = {f"p{each:g}": value for each, value in zip(PERCENTAGES, self.percentiles, strict=True)}
        return {"count": self.count, "mean": self.mean, **named, "max": self.max}


@dataclass(frozen=True, slots=True)
class Group:
    """Answers of one kind: with status OK, and of those the ones within the budget."""

    count: int
    good: int
    goodput_rps: float
    latency_ms: Latency | None


@dataclass(frozen=True, slots=True)
class Second:
    """Requests by the second of their intended time."""

    second: int
    width_s: float
    """1, but for the last."""
    offered: int
    ok: int
    """Status OK, late ones included."""
    late: int
    rejected: int
    expired: int
    failed: int
    dropped: int
    p50_ms: float | None
    """Of OK answers; None: there were none."""
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts, rates (a second of the window) and latencies (ms from the intended time) of a run."""

    window_s: float
    budget_ms: float
    offered: int
    """Requests whose time came."""
    sent: int
    ok: int
    """Status OK."""
    good: int
    """Status OK within the budget."""
    late: int
    """Status OK after the budget."""
    rejected: int
    """RESOURCE_EXHAUSTED."""
    expired: int
    """DEADLINE_EXCEEDED."""
    failed: int
    """Any other status."""
    dropped: int
    """Not sent by the generator, since too many were in flight."""
    unfinished: int
    """Sent and not answered when the run was stopped."""
    offered_rps: float
    goodput_rps: float
    latency_ms: dict[str, Latency]
    """By name of the status."""
    answers: dict[str, dict[str, Group]]
    """OK answers by source, partial, fallback, cached, plan and their values."""
    send_lag_ms: Latency | None
    series: tuple[Second, ...]


def nearest_rank(values: Floats, percentages: Sequence[float]) -> list[float]:
    """Percentiles of at least one value."""
    # Not numpy's "inverted_cdf": 99.9 % of 1,000 are 999 values and a rounding error there, which takes the 1,000th.
    ranks = np.ceil(np.asarray(percentages) * len(values) / 100 - 1e-9).astype(np.int64)
    found: list[float] = np.sort(values)[np.maximum(ranks, 1) - 1].tolist()
    return found


def latency(seconds: Floats) -> Latency | None:
    """Figures of latencies in seconds; None for none."""
    if not seconds.size:
        return None
    values = seconds * 1e3
    ranks = tuple(nearest_rank(values, PERCENTAGES))
    return Latency(len(values), float(values.mean()), ranks, float(values.max()))


def status_name(code: int) -> str:
    """gRPC's name of a code."""
    name: str = _NAMES.get(code, f"CODE_{code}")
    return name


def summarize(records: Records, *, budget_s: float, window_s: float) -> Summary:
    """Figures of the requests whose time came."""
    status, took = records.status, records.latency
    came = status != NOT_SENT
    ok = status == _OK
    good = ok & (took <= budget_s)
    rejected, expired = status == _REJECTED, status == _EXPIRED
    failed = (status > _OK) & ~rejected & ~expired
    masks = {
        "offered": came,
        "ok": ok,
        "late": ok & ~good,
        "rejected": rejected,
        "expired": expired,
        "failed": failed,
        "dropped": status == DROPPED,
    }
    by_status = {}
    for code in sorted(set(status[status >= _OK].tolist())):
        found = latency(took[status == code])
        if found is not None:
            by_status[status_name(code)] = found
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    rate = 1 / window_s if window_s > 0 else 0.0
    return Summary(
        window_s=window_s,
        budget_ms=budget_s * 1e3,
        sent=int(np.isfinite(records.sent).sum()),
        good=int(good.sum()),
        unfinished=int((status == UNFINISHED).sum()),
        offered_rps=counts["offered"] * rate,
        goodput_rps=int(good.sum()) * rate,
        latency_ms=by_status,
        answers=_answers(records, ok, good, rate),
        send_lag_ms=latency(records.lag[np.isfinite(records.lag)]),
        series=tuple(_series(records.intended, took, masks, window_s)),
        **counts,
    )


def _answers(records: Records, ok: Mask, good: Mask, rate: float) -> dict[str, dict[str, Group]]:
    took = records.latency
    split: dict[str, dict[str, Group]] = {}
    for place, field in enumerate(Answer._fields):
        values: dict[str, list[int]] = {}
        for number, answer in enumerate(records.answers):
            values.setdefault(_written(answer[place]), []).append(number)
        groups = {}
        for value, numbers in sorted(values.items()):
            members = ok & np.isin(records.answer, numbers)
            count, in_time = int(members.sum()), int((members & good).sum())
            # Kinds that only the warm-up saw have no row, and fields that this response lacks have no name.
            if count and value:
                groups[value] = Group(count, in_time, in_time * rate, latency(took[members]))
        if groups:
            split[field] = groups
    return split


def _written(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _series(intended: Floats, took: Floats, masks: dict[str, Mask], window_s: float) -> list[Second]:
    seconds = int(np.ceil(window_s))
    bucket = np.minimum(intended.astype(np.int64), seconds - 1)
    counts = {name: np.bincount(bucket[mask], minlength=seconds) for name, mask in masks.items()}
    order = np.flatnonzero(masks["ok"])  # already in order of time
    edges = np.searchsorted(bucket[order], np.arange(seconds + 1))
    rows = []
    for second in range(seconds):
        values = took[order[edges[second] : edges[second + 1]]]
        p50, p99 = nearest_rank(values * 1e3, (50, 99)) if values.size else (None, None)
        row = {name: int(count[second]) for name, count in counts.items()}
        width_s = min(1.0, window_s - second)
        rows.append(Second(second=second, width_s=width_s, p50_ms=p50, p99_ms=p99, **row))
    return rows
