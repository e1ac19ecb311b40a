"""The report of a run."""

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from bidtrie.load.ghz import ghz_report
from bidtrie.load.options import LoadOptions
from bidtrie.load.records import Records
from bidtrie.load.statistics import Latency, Summary, summarize


@dataclass(frozen=True)
class LoadReport:
    """What was asked for, what became of every request (`records`), and the figures (`summary`)."""

    options: LoadOptions
    seed: int
    """The one that was used."""
    date: datetime
    """When the warm-up began, or the run where there was none."""
    interrupted: bool
    """Stopped before everything was sent and answered."""
    window_s: float
    """Seconds in which requests were sent, the warm-up not counted."""
    records: Records

    @cached_property
    def summary(self) -> Summary:
        """The run's figures."""
        return summarize(self.records, budget_s=self.options.budget_s, window_s=self.window_s)

    def to_json(self, *, details: bool = False) -> dict[str, Any]:
        """ghz's report (times in ns), with every request under `details` if wanted, and our figures under `bidtrie`."""
        return ghz_report(
            self.options, self.date, self.records, interrupted=self.interrupted, details=details
        ) | {"bidtrie": self._figures()}

    def _figures(self) -> dict[str, Any]:
        summary = self.summary
        flat = {
            name: value for name, value in _shallow(summary).items() if not isinstance(value, dict | tuple)
        }
        answers = {
            field: {
                value: {
                    "count": group.count,
                    "good": group.good,
                    "goodput_rps": group.goodput_rps,
                    "latency_ms": _json(group.latency_ms),
                }
                for value, group in groups.items()
            }
            for field, groups in summary.answers.items()
        }
        return flat | {
            "call": self.options.call.value,
            "seed": self.seed,
            "arrivals": self.options.arrivals.value,
            "warm_up_s": self.options.warm_up,
            "interrupted": self.interrupted,
            "send_lag_ms": _json(summary.send_lag_ms),
            "latency_ms": {status: _json(found) for status, found in summary.latency_ms.items()},
            "answers": answers,
            "series": [asdict(second) for second in summary.series],
        }


def _shallow(summary: Summary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in summary.__dataclass_fields__}


def _json(latency: Latency | None) -> dict[str, float] | None:
    return None if latency is None else latency.to_json()
