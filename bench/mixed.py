"""Targeting beside creatives at full rate: how much of targeting's goodput is lost.

Targeting comes open loop (Poisson, tmax 150 ms, every context new, no fallback) at 0.8 and 1.0 of the capacity, first
alone, then beside a closed loop of creative requests that never pauses, in turn.

python -m bench.mixed [--json FILE] [--seconds 8] [--rounds 2]
"""

import argparse
import asyncio
import statistics
from typing import Any

from bidtrie.client import AsyncClient
from bidtrie.load import run_async
from bidtrie.load.words import WORDS
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import creative_pb2

from bench.measure import machine, report, serving_parser
from bench.overload import TMAX_MS, WARM_UP_S, capacity, fresh_load

_CREATIVES_IN_FLIGHT = 4


async def targeting(port: int, rate: float, seconds: float) -> float:
    """Goodput."""
    return (await run_async(fresh_load(port, rate, seconds, fallback=False))).summary.goodput_rps


async def beside_creatives(port: int, rate: float, seconds: float) -> tuple[float, int]:
    """Goodput of targeting, and creatives that were written meanwhile."""
    written = 0

    async def write(client: AsyncClient, number: int) -> None:
        nonlocal written
        i = 0
        while True:
            i += 1
            product = creative_pb2.Product(
                name=f"{WORDS[(number * 37 + i) % len(WORDS)]} {number} {i}",
                description="Keeps tea warm for hours.",
            )
            await client.generate(product=product, timeout_ms=60_000)
            written += 1

    async with AsyncClient(f"127.0.0.1:{port}") as client:
        writers = [asyncio.create_task(write(client, number)) for number in range(_CREATIVES_IN_FLIGHT)]
        goodput = await targeting(port, rate, seconds)
        for writer in writers:
            assert not writer.done(), writer.exception()
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    return goodput, written


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    figures: dict[str, Any] = {"benchmark": "mixed", "model": options.model, "tmax_ms": TMAX_MS}
    with own_server(options.model, [options.catalog], ["--cache-fills", "0"]) as ports:
        peak = capacity(ports, options.seconds)
        figures["capacity_rps"] = peak
        for share in (0.8, 1.0):
            alone, mixed, creatives = [], [], []
            for _ in range(options.rounds):
                alone.append(asyncio.run(targeting(ports.grpc, share * peak, options.seconds)))
                goodput, written = asyncio.run(beside_creatives(ports.grpc, share * peak, options.seconds))
                mixed.append(goodput)
                creatives.append(written / (options.seconds + WARM_UP_S))
            name = f"{share:g}x"
            figures |= {
                f"goodput_alone_{name}_rps": statistics.median(alone),
                f"goodput_beside_creatives_{name}_rps": statistics.median(mixed),
                f"creatives_{name}_rps": statistics.median(creatives),
                f"ratio_mixed_to_alone_{name}": statistics.median(mixed) / statistics.median(alone),
                f"ratio_mixed_to_alone_{name}_rounds": [m / a for m, a in zip(mixed, alone, strict=True)],
            }
    return figures | machine()


def main() -> None:
    parser = serving_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turn")
    options = parser.parse_args()
    report(run(options), options.json)


if __name__ == "__main__":
    main()
