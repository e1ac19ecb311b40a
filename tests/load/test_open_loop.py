"""What makes it an open loop, against servers that stall; a closed loop beside it shows that the tests can tell.

Nothing here depends on how fast the machine is: servers wait for events, latencies are compared with intended times.
"""

import asyncio
import time

import grpc
import numpy as np
import pytest
from bidtrie.load.options import Arrivals, LoadOptions
from bidtrie.load.records import DROPPED
from bidtrie.load.runner import Progress, run_async
from load.scripted_server import OK, ScriptedServer

HELD = 20
RATE = 200.0
HANG_S = 60.0


class HoldsUntil:
    """Answers nobody before so many requests have come."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting = 0
        self.all_here = asyncio.Event()

    async def __call__(self, number: int, context: grpc.aio.ServicerContext) -> bytes:
        self.waiting += not self.all_here.is_set()
        if number + 1 == self.count:
            self.all_here.set()
        await asyncio.wait_for(self.all_here.wait(), HANG_S)
        return OK


async def closed_loop(address: str, count: int, timeout_s: float) -> int:
    """One request after the other, each after the last one's answer; how many were answered."""
    answered = 0
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary("/bidtrie.v1.Targeting/Target")
        try:
            for _ in range(count):
                await method(b"", timeout=timeout_s)
                answered += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
    return answered


def options(server: ScriptedServer, **changes: object) -> LoadOptions:
    given = {
        "rps": RATE,
        "total": 2 * HELD,
        "arrivals": Arrivals.CONSTANT,
        "timeout_ms": HANG_S * 1e3,
        "seed": 1,
    }
    return LoadOptions(target=server.address, **given | changes)  # type: ignore[arg-type]


async def test_requests_leave_while_none_is_answered(server: ScriptedServer) -> None:
    script = server.script = HoldsUntil(HELD)
    report = await run_async(options(server))
    assert script.waiting == HELD
    assert report.summary.ok == 2 * HELD


async def test_a_closed_loop_would_wait(server: ScriptedServer) -> None:
    script = server.script = HoldsUntil(HELD)
    assert await closed_loop(server.address, HELD, timeout_s=0.3) == 0
    assert script.waiting == 1


async def test_a_stall_is_in_every_latency_that_it_touched(server: ScriptedServer) -> None:
    """The requests of the stall could not be answered before the last of them was due."""
    server.script = HoldsUntil(HELD)
    report = await run_async(options(server))
    intended, took = report.records.intended, report.records.latency
    assert (took[:HELD] >= intended[HELD - 1] - intended[:HELD]).all()
    # A client that waits for its answer meets the stall once, at its first request; here half of the requests have it.
    least = (HELD // 2 - 1) / RATE
    assert (took >= least).sum() >= HELD // 2
    assert report.summary.latency_ms["OK"].percentiles[-1] >= intended[HELD - 1] * 1e3


async def test_a_generator_that_falls_behind_is_seen(server: ScriptedServer) -> None:
    """The server stops the whole loop, generator included: what was due meanwhile leaves late, and says so."""
    stopped: list[float] = []

    async def stops_the_loop(number: int, context: grpc.aio.ServicerContext) -> bytes:
        if number == 5:
            stopped.append(time.monotonic())
            time.sleep(0.25)
        return OK

    server.script = stops_the_loop
    report = await run_async(options(server, total=400))
    records = report.records
    # Somebody was due within the first gap between two requests of the stop, and left after it.
    assert records.lag.max() >= 0.25 - 2 / RATE
    assert (records.lag >= 0).all(), "sent before its time"
    lag = report.summary.send_lag_ms
    assert lag is not None
    assert lag.max == pytest.approx(records.lag.max() * 1e3)
    late = records.lag > 0.1
    assert late.sum() > 10
    # Negative control: counted from when they were really sent, the lag is gone from these latencies.
    from_sent = records.done - records.sent
    np.testing.assert_allclose(records.latency - from_sent, records.lag)
    assert (records.latency[late] > 0.1).all()
    assert (from_sent[late] < records.latency[late] - 0.1).all()


async def test_what_exceeds_the_bound_is_dropped_and_counted(server: ScriptedServer) -> None:
    release = asyncio.Event()

    async def waits(number: int, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.wait_for(release.wait(), HANG_S)
        return OK

    def progress(now: Progress) -> None:
        if now.sent == now.planned:
            release.set()

    server.script = waits
    report = await run_async(options(server, total=25, max_in_flight=5), on_progress=progress)
    summary = report.summary
    assert len(server.requests) == summary.sent == summary.ok == 5
    assert summary.dropped == 20
    assert summary.offered == 25
    assert sum(second.dropped for second in summary.series) == 20
    assert (report.records.status[5:] == DROPPED).all()
    # The generator's own losses are no answers of the server's.
    assert report.to_json()["count"] == 5


async def test_an_ample_bound_drops_nothing(server: ScriptedServer) -> None:
    report = await run_async(options(server, total=25))
    assert report.summary.dropped == 0
    assert len(server.requests) == 25
