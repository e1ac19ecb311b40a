"""Deadlines and cancellation reach the backend. Nothing here depends on how fast the machine is."""

import asyncio
import time
from collections.abc import Callable

import grpc
import pytest
from bidtrie.v1.creative_pb2 import GenerateRequest
from bidtrie.v1.targeting_pb2 import TargetRequest
from server.conftest import Running
from server.statuses import failure

FOREVER = "sleep=3600"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_tmax_ends_a_call_without_grpc_deadline(running: Running) -> None:
    error = await failure(running.targeting.Target(TargetRequest(context={"title": FOREVER}, tmax_ms=30)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (running.backend.cancelled, running.backend.running) == (1, 0)


async def test_tmax_ends_a_stream(running: Running) -> None:
    call = running.creative.GenerateStream(GenerateRequest(product={"name": FOREVER}, tmax_ms=30))
    assert (await failure(call.read())).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (running.backend.cancelled, running.backend.running) == (1, 0)


async def test_the_grpc_deadline_ends_the_backends_work(running: Running) -> None:
    call = running.targeting.Target(TargetRequest(context={"title": FOREVER}), timeout=0.05)
    assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: running.backend.cancelled == 1)


@pytest.mark.parametrize(("timeout", "tmax_ms", "most"), [(60.0, 500, 0.5), (0.5, 60_000, 0.5)])
async def test_the_backend_is_told_the_earlier_deadline(
    running: Running, timeout: float, tmax_ms: int, most: float
) -> None:
    begin = time.monotonic()
    await running.targeting.Target(TargetRequest(context={"title": "t"}, tmax_ms=tmax_ms), timeout=timeout)
    deadline = running.backend.targets[0].deadline
    assert deadline is not None
    # The server takes the gRPC deadline as what is left of it on arrival: never later than the client means it.
    assert begin < deadline <= time.monotonic() + most


async def test_no_deadline_is_none(running: Running) -> None:
    await running.targeting.Target(TargetRequest(context={"title": "t"}))
    assert running.backend.targets[0].deadline is None


async def test_cancelling_a_call_ends_the_backends_work(running: Running) -> None:
    call = running.targeting.Target(TargetRequest(context={"title": FOREVER}))
    await until(lambda: running.backend.running == 1)
    call.cancel()
    await until(lambda: running.backend.cancelled == 1)
    assert running.backend.running == 0
    assert (await running.targeting.Target(TargetRequest(context={"title": "t"}))).segments


async def test_cancelling_a_stream_midway_ends_the_backends_work(running: Running) -> None:
    call = running.creative.GenerateStream(GenerateRequest(product={"name": "sleep=0.02"}, candidates=16))
    first = await call.read()
    assert first.delta.text == "Run"
    call.cancel()
    await until(lambda: running.backend.running == 0 and running.server.in_flight == 0)
    assert (await running.creative.Generate(GenerateRequest(product={"name": "p"}))).creatives
