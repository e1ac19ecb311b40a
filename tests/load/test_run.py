"""Whole runs against a scripted server."""

import asyncio
import os
import signal
import threading
from typing import Any

import grpc
import pytest
from bidtrie.errors import BidtrieError
from bidtrie.load import Arrivals, Call, LoadOptions, Progress, run, run_async
from bidtrie.load.records import NOT_SENT, UNFINISHED
from bidtrie.v1 import common_pb2, creative_pb2, targeting_pb2
from load.scripted_server import OK, ScriptedServer
from server.process import fake_server

HANG_S = 60.0


def options(server: ScriptedServer, **changes: Any) -> LoadOptions:
    given = {"rps": 400.0, "total": 40, "arrivals": Arrivals.CONSTANT, "timeout_ms": HANG_S * 1e3, "seed": 1}
    return LoadOptions(target=server.address, **given | changes)


async def test_statuses_are_counted(server: ScriptedServer) -> None:
    ends = [
        None,
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "too late"),
        (grpc.StatusCode.UNAVAILABLE, "draining"),
    ]

    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        end = ends[number % 4]
        if end is not None:
            await context.abort(*end)
        return OK

    server.script = script
    report = await run_async(options(server))
    found = report.summary
    assert (found.ok, found.rejected, found.expired, found.failed) == (10, 10, 10, 10)
    assert found.offered == found.sent == 40
    assert {name: latency.count for name, latency in found.latency_ms.items()} == {
        "OK": 10,
        "RESOURCE_EXHAUSTED": 10,
        "DEADLINE_EXCEEDED": 10,
        "UNAVAILABLE": 10,
    }
    written = report.to_json()
    assert written["count"] == 40
    assert written["statusCodeDistribution"] == {
        "OK": 10,
        "ResourceExhausted": 10,
        "DeadlineExceeded": 10,
        "Unavailable": 10,
    }
    assert written["errorDistribution"]["rpc error: code = ResourceExhausted desc = the queue is full"] == 10
    assert not report.interrupted


async def test_the_deadline_is_sent(server: ScriptedServer) -> None:
    left: list[float] = []

    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        return OK

    server.script = script
    await run_async(options(server, total=3, timeout_ms=40_000))
    # On the wire a timeout has two or three digits, rounded up.
    assert all(0 < seconds <= 41 for seconds in left)


async def test_a_deadline_that_passes_is_an_answer(server: ScriptedServer) -> None:
    async def never(number: int, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.sleep(HANG_S)
        return OK

    server.script = never
    report = await run_async(options(server, total=4, timeout_ms=100))
    assert report.summary.expired == 4
    assert report.summary.unfinished == 0
    assert report.summary.latency_ms["DEADLINE_EXCEEDED"].p50 >= 100


async def test_late_answers_are_no_goodput(server: ScriptedServer) -> None:
    async def slow(number: int, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.sleep(0.02)
        return OK

    server.script = slow
    late = (await run_async(options(server, tmax_ms=10))).summary
    assert (late.ok, late.late, late.good, late.goodput_rps) == (40, 40, 0, 0.0)
    assert sum(second.late for second in late.series) == 40
    # Negative control: the same server under a budget that it keeps.
    good = (await run_async(options(server, tmax_ms=50_000))).summary
    assert (good.ok, good.late, good.good) == (40, 0, 40)
    assert good.goodput_rps == pytest.approx(400)


async def test_answers_are_told_apart(server: ScriptedServer) -> None:
    answers = [
        targeting_pb2.TargetResponse(source=common_pb2.SOURCE_LLM, plan="full"),
        targeting_pb2.TargetResponse(source=common_pb2.SOURCE_LLM, partial=True, plan="short"),
        targeting_pb2.TargetResponse(source=common_pb2.SOURCE_BOTH, cache_age_ms=0, plan="full"),
        targeting_pb2.TargetResponse(source=common_pb2.SOURCE_RETRIEVER, fallback=True),
    ]

    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        return answers[number % 4].SerializeToString()

    server.script = script
    found = (await run_async(options(server))).summary.answers
    counts = {
        field: {value: group.count for value, group in groups.items()} for field, groups in found.items()
    }
    assert counts == {
        "source": {"SOURCE_LLM": 20, "SOURCE_BOTH": 10, "SOURCE_RETRIEVER": 10},
        "partial": {"false": 30, "true": 10},
        "fallback": {"false": 30, "true": 10},
        # A cache age of 0 ms is an age.
        "cached": {"false": 30, "true": 10},
        "plan": {"full": 20, "short": 10},
    }


async def test_creatives(server: ScriptedServer) -> None:
    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        return creative_pb2.GenerateResponse(partial=number % 2 == 0).SerializeToString()

    server.script = script
    report = await run_async(options(server, call=Call.GENERATE))
    assert report.summary.ok == 40
    assert report.summary.answers["partial"]["true"].count == 20
    assert "source" not in report.summary.answers
    assert creative_pb2.GenerateRequest.FromString(server.requests[0]).product.name


async def test_an_answer_that_is_none(server: ScriptedServer) -> None:
    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        return b"\xff\xff\xff"

    server.script = script
    report = await run_async(options(server, total=3))
    assert report.summary.ok == 0
    assert report.to_json()["errorDistribution"] == {
        "rpc error: code = Unknown desc = the answer cannot be parsed": 3
    }


async def test_many_messages_are_bounded(server: ScriptedServer) -> None:
    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, f"message {number}")
        return OK

    server.script = script
    report = await run_async(options(server, total=150, rps=2_000.0))
    errors = report.records.errors
    assert len(errors) == 101
    assert sum(errors.values()) == 150


async def test_the_warm_up_is_sent_and_not_counted(server: ScriptedServer) -> None:
    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        if number < 40:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "warming up")
        return OK

    server.script = script
    report = await run_async(options(server, warm_up=0.1))
    assert len(server.requests) == 80
    assert report.summary.offered == report.summary.ok == 40
    assert report.records.errors == {}
    assert (report.records.intended >= 0).all()


async def test_requests_are_distinct_and_every_connection_is_used(server: ScriptedServer) -> None:
    await run_async(options(server, connections=3))
    assert len(server.peers) == 3
    assert len(set(server.requests)) == 40
    titles = {targeting_pb2.TargetRequest.FromString(each).context.title for each in server.requests}
    assert len(titles) == 40


async def test_the_same_seed_sends_the_same(server: ScriptedServer) -> None:
    first = await run_async(options(server, arrivals=Arrivals.POISSON))
    sent = set(server.requests)
    server.requests.clear()
    second = await run_async(options(server, arrivals=Arrivals.POISSON))
    assert set(server.requests) == sent
    assert (first.records.intended == second.records.intended).all()
    server.requests.clear()
    other = await run_async(options(server, seed=None))
    assert not set(server.requests) & sent
    assert other.seed != 1


async def test_stopping_reports_what_was_done(server: ScriptedServer) -> None:
    stop = asyncio.Event()

    async def script(number: int, context: grpc.aio.ServicerContext) -> bytes:
        if number >= 8:
            await asyncio.sleep(HANG_S)
        return OK

    def progress(now: Progress) -> None:
        if now.answered == 8 and now.sent >= 12:
            stop.set()

    server.script = script
    report = await run_async(options(server, total=40_000), on_progress=progress, stop=stop)
    assert report.interrupted
    status = report.records.status.tolist()
    assert status.count(0) == report.summary.ok == 8
    assert status.count(UNFINISHED) == report.summary.unfinished >= 4
    assert status.count(NOT_SENT) > 30_000
    assert report.summary.offered == 40_000 - status.count(NOT_SENT)
    assert 0 < report.window_s < 100
    assert report.to_json()["endReason"] == "cancel"


def test_ctrl_c_ends_a_run_and_only_that() -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(progress: Progress) -> None:
        if progress.answered >= 3:
            os.kill(os.getpid(), signal.SIGINT)

    with fake_server() as server:
        server.event("ready")
        given = LoadOptions(target=server.grpc_address, rps=50.0, duration=HANG_S)
        report = run(given, on_progress=interrupt)
    assert report.interrupted
    assert report.summary.ok >= 3
    assert report.window_s < HANG_S
    assert signal.getsignal(signal.SIGINT) is before


def test_runs_from_a_thread() -> None:
    found: list[int] = []
    with fake_server() as server:
        server.event("ready")
        given = LoadOptions(target=server.grpc_address, rps=200.0, total=20, timeout_ms=HANG_S * 1e3)
        thread = threading.Thread(target=lambda: found.append(run(given).summary.ok))
        thread.start()
        thread.join(HANG_S)
    assert found == [20]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:1"])
async def test_no_server(address: str) -> None:
    with pytest.raises(BidtrieError, match=f"^{address}: no server can be reached there$"):
        await run_async(LoadOptions(target=address))
