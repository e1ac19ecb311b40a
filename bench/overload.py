"""Goodput against offered load: what is answered in time when ten times more is asked than can be.

Capacity is what the server answers a second in full with 16 requests always in flight. Then, open loop with Poisson
arrivals, tmax 150 ms, every context new so that no cache helps: 0.5, 1, 2, 5 and 10 times the capacity, in turn against
the server without fallback, with it, and a server with a plain first-in-first-out queue (`bench.fifo_server`). The load
generator runs on the same cores.

Goodput counts answers within tmax of the intended send time; with fallback it counts those of the model apart.

python -m bench.overload [--json FILE] [--plot FILE.png] [--seconds 8] [--threads N]
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from bidtrie.client import AsyncClient
from bidtrie.load import LoadOptions, run
from bidtrie.load.words import distinct_words
from bidtrie.serving.own_server import Ports, own_server

from bench.measure import machine, report, serving_parser
from bench.scrape import quantile_ms, scrape, total

TMAX_MS = 150
MULTIPLES = (0.5, 1.0, 2.0, 5.0, 10.0)
#: A gRPC deadline beyond tmax, so that a late answer is seen as one.
_TIMEOUT_MS = 2_000.0
_IN_FLIGHT = 16
WARM_UP_S = 2.0


def capacity(ports: Ports, seconds: float) -> float:
    """Full answers a second in a closed loop."""

    async def measure() -> float:
        done = 0
        end = time.monotonic() + seconds

        titles = distinct_words(0)

        async def worker(client: AsyncClient) -> None:
            nonlocal done
            while time.monotonic() < end:
                await client.target(title=" ".join(next(titles)), timeout_ms=60_000)
                done += 1

        async with AsyncClient(f"127.0.0.1:{ports.grpc}") as client:
            await asyncio.gather(*(worker(client) for _ in range(_IN_FLIGHT)))
        return done / seconds

    return asyncio.run(measure())


def fresh_load(port: int, rate: float, seconds: float, *, fallback: bool) -> LoadOptions:
    """Open loop, every context new, after a warm-up that does not count."""
    return LoadOptions(
        target=f"127.0.0.1:{port}",
        rps=rate,
        duration=seconds,
        warm_up=WARM_UP_S,
        fresh=True,
        tmax_ms=TMAX_MS,
        timeout_ms=_TIMEOUT_MS,
        allow_fallback=fallback,
        max_in_flight=5_000,
    )


def point(ports: Ports, rate: float, seconds: float, *, fallback: bool) -> dict[str, Any]:
    """One load on one server."""
    before = scrape(ports.http)
    found = run(fresh_load(ports.grpc, rate, seconds, fallback=fallback)).summary
    after = scrape(ports.http)
    refused = found.latency_ms.get("RESOURCE_EXHAUSTED")
    ok = found.latency_ms.get("OK")
    by_model = sum(
        group.good for value, group in found.answers.get("source", {}).items() if "RETRIEVER" not in value
    )
    plans = {value: group.count for value, group in found.answers.get("plan", {}).items()}
    answered = total(after, "bidtrie_answers_total") - total(before, "bidtrie_answers_total")
    late = total(after, "bidtrie_late_answers_total") - total(before, "bidtrie_late_answers_total")
    return {
        "offered_rps": found.offered_rps,
        "goodput_rps": found.goodput_rps,
        "goodput_by_model_rps": by_model / found.window_s,
        "ok_p50_ms": ok.p50 if ok else None,
        "ok_p99_ms": ok.p99 if ok else None,
        "late_share_at_server": late / answered if answered else 0.0,
        "late_share_at_client": found.late / found.ok if found.ok else 0.0,
        "refused_share": found.rejected / found.offered,
        "expired_share": found.expired / found.offered,
        "refused_p50_ms": refused.p50 if refused else None,
        "refused_p99_ms": refused.p99 if refused else None,
        "refused_in_handler_p50_ms": quantile_ms(before, after, "bidtrie_refusal_seconds", 0.5),
        "refused_in_handler_p99_ms": quantile_ms(before, after, "bidtrie_refusal_seconds", 0.99),
        "dropped_by_generator": found.dropped,
        "send_lag_p99_ms": found.send_lag_ms.p99 if found.send_lag_ms else None,
        "plans": plans,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    arguments = [*threads, "--cache-fills", "0"]
    kinds = {
        "strict": ("bidtrie", False),
        "fallback": ("bidtrie", True),
        "fifo": ("bench.fifo_server", False),
    }
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    with (
        own_server(options.model, [options.catalog], arguments) as ours,
        own_server(options.model, [options.catalog], arguments, module="bench.fifo_server") as fifo,
    ):
        peak = capacity(ours, options.seconds)
        for multiple in MULTIPLES:
            for name, (module, fallback) in kinds.items():
                ports = ours if module == "bidtrie" else fifo
                found = point(ports, multiple * peak, options.seconds, fallback=fallback)
                curves[name].append({"multiple": multiple} | found)
                print(
                    name,
                    multiple,
                    {key: value for key, value in found.items() if key != "plans"},
                    found["plans"],
                )
    figures: dict[str, Any] = {
        "benchmark": "overload",
        "model": options.model,
        "tmax_ms": TMAX_MS,
        "seconds_a_point": options.seconds,
        "threads": options.threads,
        "capacity_rps": peak,
    }
    for name, curve in curves.items():
        goodputs = [each["goodput_by_model_rps"] for each in curve]
        figures[f"ratio_goodput_10x_to_peak_{name}"] = goodputs[-1] / max(goodputs)
        figures[f"worst_late_share_{name}"] = max(each["late_share_at_client"] for each in curve)
    figures["ratio_goodput_10x_to_peak"] = figures["ratio_goodput_10x_to_peak_strict"]
    figures["curves"] = curves
    return figures | machine()


def plot(figures: dict[str, Any], file: Path) -> None:
    """Goodput against offered load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {
        "strict": "bidtrie, no fallback",
        "fallback": "bidtrie, with fallback",
        "fifo": "first in, first out",
    }
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, curve in figures["curves"].items():
        offered = [each["offered_rps"] for each in curve]
        left.plot(offered, [each["goodput_by_model_rps"] for each in curve], marker="o", label=labels[name])
        right.plot(
            offered, [each["ok_p99_ms"] or float("nan") for each in curve], marker="o", label=labels[name]
        )
    left.axvline(figures["capacity_rps"], color="grey", linestyle=":", label="capacity, full search")
    left.set(
        xscale="log", xlabel="offered, requests a second", ylabel="answered by the model in time, a second"
    )
    right.axhline(TMAX_MS, color="grey", linestyle=":", label="tmax")
    right.set(xscale="log", xlabel="offered, requests a second", ylabel="p99 of answers, ms", ylim=(0, None))
    for axes in (left, right):
        axes.set_xticks(offered, [f"{value:.0f}" for value in offered])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("Targeting under overload: every context new, tmax 150 ms")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = serving_parser(__doc__)
    parser.add_argument("--plot", type=Path, help="draw the curves to this file")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load")
    parser.add_argument("--threads", type=int, help="threads of the engine; unset: one a core")
    options = parser.parse_args()
    figures = measure(options)
    if options.plot is not None:
        plot(figures, options.plot)
    report(figures, options.json)


if __name__ == "__main__":
    main()
