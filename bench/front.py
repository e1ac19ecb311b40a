"""Cached answers a second against a bare grpc.aio echo of the same sizes, in one run, in turn.

The servers are on one core, the client on another. The client keeps 32 requests in flight over 4 connections and
neither encodes nor decodes; every request is one of 64 pages, all of them in the cache.

python -m bench.front [--json FILE] [--seconds 4] [--rounds 3]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import uvloop
from bidtrie.load.words import WORDS
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import targeting_pb2

from bench.echo_server import METHOD
from bench.measure import machine, report, serving_parser

_TARGET = "/bidtrie.v1.Targeting/Target"
_PAGES, _IN_FLIGHT, _CONNECTIONS = 64, 32, 4
_WARM_UP_S = 0.5


def requests() -> list[bytes]:
    """A request each for some pages, with an id as bid servers send it."""
    return [
        targeting_pb2.TargetRequest(
            request_id=f"request-{i:024d}",
            context=targeting_pb2.Context(title=" ".join(WORDS[(7 * i + k) % len(WORDS)] for k in range(7))),
            tmax_ms=60_000,
        ).SerializeToString()
        for i in range(_PAGES)
    ]


async def flood(port: int, method: str, bodies: Sequence[bytes], seconds: float) -> list[float]:
    """Latencies in milliseconds of a closed loop."""
    times: list[float] = []
    # Channels to one address share a connection unless each has a pool of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(_CONNECTIONS)]
    end = time.perf_counter() + seconds

    async def worker(number: int) -> None:
        call = channels[number % _CONNECTIONS].unary_unary(method)
        i = number
        while True:
            begin = time.perf_counter()
            if begin >= end:
                return
            await call(bodies[i % len(bodies)])
            times.append((time.perf_counter() - begin) * 1000)
            i += 1

    await asyncio.gather(*(worker(number) for number in range(_IN_FLIGHT)))
    for channel in channels:
        await channel.close()
    return times


def measure_port(
    port: int, method: str, bodies: Sequence[bytes], seconds: float
) -> tuple[float, list[float]]:
    """Requests a second, and latencies."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(flood(port, method, bodies, _WARM_UP_S))
        times = runner.run(flood(port, method, bodies, seconds))
    return len(times) / seconds, times


@contextmanager
def echo_server(size: int) -> Iterator[int]:
    """The port of an echo server of our own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo_server", str(size)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[0], cores[-1]
    bodies = requests()
    # What is started now stays on the core that it was started on.
    os.sched_setaffinity(0, {server_core})
    with own_server(options.model, [options.catalog], ["--threads", "1"]) as ours:
        with grpc.insecure_channel(f"127.0.0.1:{ours.grpc}") as channel:
            answers = [channel.unary_unary(_TARGET)(body) for body in bodies]
            answers = [channel.unary_unary(_TARGET)(body) for body in bodies]
        cached = [
            targeting_pb2.TargetResponse.FromString(answer).HasField("cache_age_ms") for answer in answers
        ]
        assert all(cached), "the pages are not cached"
        size = round(statistics.median(map(len, answers)))
        with echo_server(size) as echo:
            os.sched_setaffinity(0, {client_core})
            found: dict[str, list[tuple[float, list[float]]]] = {"bidtrie": [], "echo": []}
            for _ in range(options.rounds):
                found["bidtrie"].append(measure_port(ours.grpc, _TARGET, bodies, options.seconds))
                found["echo"].append(measure_port(echo, METHOD, bodies, options.seconds))
    os.sched_setaffinity(0, set(cores))
    figures: dict[str, Any] = {
        "benchmark": "front",
        "model": options.model,
        "request_bytes": round(statistics.median(map(len, bodies))),
        "response_bytes": size,
        "in_flight": _IN_FLIGHT,
        "rounds": options.rounds,
    }
    for name, rounds in found.items():
        rates = [rate for rate, _ in rounds]
        times = np.concatenate([times for _, times in rounds])
        figures |= {
            f"{name}_requests_per_s": statistics.median(rates),
            f"{name}_requests_per_s_min": min(rates),
            f"{name}_requests_per_s_max": max(rates),
            f"{name}_p50_ms": float(np.percentile(times, 50)),
            f"{name}_p99_ms": float(np.percentile(times, 99)),
        }
    ratios = [ours[0] / echo[0] for ours, echo in zip(found["bidtrie"], found["echo"], strict=True)]
    figures |= {"ratio_to_echo": statistics.median(ratios), "ratio_to_echo_rounds": ratios}
    return figures | machine()


def main() -> None:
    parser = serving_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured, in turn")
    options = parser.parse_args()
    report(run(options), options.json)


if __name__ == "__main__":
    main()
