"""Signals, with a server process of its own."""

import asyncio
import signal

import grpc
import pytest
from bidtrie.v1.creative_pb2 import GenerateRequest
from bidtrie.v1.creative_pb2_grpc import CreativeStub
from bidtrie.v1.targeting_pb2 import TargetRequest
from bidtrie.v1.targeting_pb2_grpc import TargetingStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server.process import ServerProcess, fake_server
from server.statuses import failure
from server.test_http import get


async def logged(server: ServerProcess, event: str) -> None:
    await asyncio.to_thread(server.event, event)


async def test_running_calls_finish_under_load() -> None:
    with fake_server(drain_seconds=20) as server:
        await logged(server, "ready")
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub = TargetingStub(channel)
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            slow = [
                asyncio.ensure_future(
                    stub.Target(TargetRequest(request_id=str(i), context={"title": "sleep=3"}))
                )
                for i in range(20)
            ]
            # Answered calls prove that the slow ones, sent before on the same connection, have arrived.
            for _ in range(20):
                await stub.Target(TargetRequest(context={"title": "t"}))
            server.signal()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            assert (await get(server.http_port, "/health/ready"))[0] == 503
            assert (await get(server.http_port, "/health/live"))[0] == 200
            refused = await failure(stub.Target(TargetRequest(context={"title": "t"})))
            assert refused.code() is grpc.StatusCode.UNAVAILABLE
            assert "draining" in refused.details()
            answers = await asyncio.gather(*slow)
            assert [answer.request_id for answer in answers] == [str(i) for i in range(20)]
        assert await asyncio.to_thread(server.exit_code) == 0
        assert server.event("draining")["running"] == 20
        assert server.event("stopped")["ended_early"] == 0


async def test_calls_that_outlive_the_grace_period_end_as_unavailable() -> None:
    with fake_server(drain_seconds=0.2) as server:
        await logged(server, "ready")
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            target = TargetingStub(channel).Target(TargetRequest(context={"title": "sleep=3600"}))
            stream = CreativeStub(channel).GenerateStream(
                GenerateRequest(
                    product={"name": "sleep=0.01"}, candidates=16, slots=[{"name": str(i)} for i in range(10)]
                )
            )
            pieces = aiter(stream)
            await anext(pieces)
            server.signal()
            assert (await failure(target)).code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in pieces:
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(server.exit_code) == 0
        assert server.event("stopped")["ended_early"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_stops_at_once(number: int) -> None:
    with fake_server(drain_seconds=600) as server:
        await logged(server, "ready")
        server.signal(number)
        assert await asyncio.to_thread(server.exit_code) == 0


async def test_a_signal_while_loading() -> None:
    with fake_server(load_seconds=2) as server:
        await logged(server, "listening")
        assert (await get(server.http_port, "/health/ready"))[0] == 503
        server.signal()
        assert await asyncio.to_thread(server.exit_code) == 0
        assert "ready" not in [line["event"] for line in server.lines]


async def test_a_second_signal_ends_the_process() -> None:
    with fake_server(drain_seconds=600) as server:
        await logged(server, "ready")
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub = TargetingStub(channel)
            slow = asyncio.ensure_future(stub.Target(TargetRequest(context={"title": "sleep=3600"})))
            await stub.Target(TargetRequest(context={"title": "t"}))
            server.signal()
            await logged(server, "draining")
            server.signal()
            assert await asyncio.to_thread(server.exit_code) == -signal.SIGTERM
            assert (await failure(slow)).code() is grpc.StatusCode.UNAVAILABLE


async def test_logs_are_json_without_anything_from_requests() -> None:
    words = "the quick brown fox"
    with fake_server() as server:
        await logged(server, "ready")
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub = TargetingStub(channel)
            await stub.Target(TargetRequest(request_id=words, context={"title": words}))
            await failure(stub.Target(TargetRequest(context={"title": f"raise=defect {words}"})))
            await failure(stub.Target(TargetRequest(catalog=words, context={"title": words})))
        server.signal()
        assert await asyncio.to_thread(server.exit_code) == 0
        assert [line["event"] for line in server.lines] == [
            "listening", "ready", "call failed", "draining", "stopped",
        ]  # fmt: skip
        for line in server.lines:
            assert {"ts", "level", "logger", "event"} <= set(line)
            assert words not in str(line)
