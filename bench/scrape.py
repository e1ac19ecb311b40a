"""Figures of a running server's /metrics."""

import math
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(http_port: int) -> Samples:
    """Every sample of a server on the loopback address, by name and sorted labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over the series of a name that have these labels."""
    wanted = labels.items()
    return sum(
        value for (each, have), value in samples.items() if each == name and wanted <= dict(have).items()
    )


def quantile_ms(before: Samples, after: Samples, histogram: str, q: float) -> float:
    """A quantile of what a histogram took in between two scrapes, as Prometheus interpolates it, in milliseconds."""
    name = f"{histogram}_bucket"
    counts = sorted(
        (
            math.inf if (le := dict(labels)["le"]) == "+Inf" else float(le),
            value - before.get((each, labels), 0.0),
        )
        for (each, labels), value in after.items()
        if each == name
    )
    if not counts or not counts[-1][1]:
        return math.nan
    rank = q * counts[-1][1]
    low, below = 0.0, 0.0
    for bound, count in counts:
        if count >= rank:
            if math.isinf(bound):
                return 1000 * low
            return 1000 * (low + (bound - low) * (rank - below) / max(count - below, 1e-9))
        low, below = bound, count
    return math.nan
