"""Faults of a real server under load: every request gets a status, and the next one is answered."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from bidtrie.client import AsyncClient
from bidtrie.errors import BidtrieError
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import targeting_pb2, targeting_pb2_grpc

MODEL = "smollm2-135m"


def request(i: int) -> targeting_pb2.TargetRequest:
    return targeting_pb2.TargetRequest(context={"title": f"Page number {i} about bread"}, tmax_ms=2_000)


async def statuses(port: int, count: int, then) -> list[str]:
    """The status of each of many requests that are sent at once; `then` is called in their midst."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = targeting_pb2_grpc.TargetingStub(channel)
        calls = [stub.Target(request(i), timeout=20) for i in range(count)]
        await asyncio.sleep(0.05)
        then(calls)

        async def status(call) -> str:
            try:
                await call
            except grpc.aio.AioRpcError as error:
                return error.code().name
            except asyncio.CancelledError:
                return "CANCELLED"
            return "OK"

        return await asyncio.wait_for(asyncio.gather(*map(status, calls)), 60)


async def test_sigterm_under_load_gives_every_request_a_status(product_home):
    with own_server(MODEL, ["iab-content"], ["--drain-seconds", "5"]) as ports:
        found = await statuses(ports.grpc, 60, lambda calls: os.kill(ports.pid, signal.SIGTERM))
        assert set(found) <= {"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        assert "OK" in found, "running requests end"
        for _ in range(200):
            if _has_ended(ports.pid):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the server does not end")


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, but for its parent that has not asked yet."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"


async def test_clients_that_vanish_leave_no_slot_and_no_request_behind(product_home):
    with own_server(MODEL, ["iab-content"]) as ports:
        async with AsyncClient(f"127.0.0.1:{ports.grpc}") as client:
            await client.target(title="Warm", timeout_ms=20_000)
            free = (await client.status()).kv_slots_free
            code = (
                "import sys, time, grpc\n"
                "from bidtrie.v1 import targeting_pb2, targeting_pb2_grpc\n"
                f"stub = targeting_pb2_grpc.TargetingStub(grpc.insecure_channel('127.0.0.1:{ports.grpc}'))\n"
                "calls = [stub.Target.future(targeting_pb2.TargetRequest(context={'title': f'Gone {i}'}), timeout=60)"
                " for i in range(50)]\n"
                "calls[0].result()\n"
                "print('sent', flush=True)\n"
                "time.sleep(60)\n"
            )
            gone = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            assert gone.stdout is not None
            assert gone.stdout.readline() == "sent\n"
            gone.kill()
            gone.communicate()
            end = time.monotonic() + 20
            while (status := await client.status()).requests_in_flight or status.kv_slots_free != free:
                assert time.monotonic() < end, status
                await asyncio.sleep(0.05)
            answer = await client.target(title="After them", timeout_ms=20_000, allow_fallback=False)
            assert answer.segments


async def test_a_home_that_cannot_be_written_costs_nothing_but_the_cost_model(product_home, tmp_path):
    frozen = tmp_path / "home"
    frozen.mkdir()
    for name in ("models", "catalogs"):
        (frozen / name).symlink_to(product_home / name)
    (frozen / "costs").write_text("a file where a folder should be")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(frozen))
        with own_server(MODEL, ["iab-content"]) as ports:
            async with AsyncClient(f"127.0.0.1:{ports.grpc}") as client:
                assert (await client.target(title="Bread", timeout_ms=20_000)).segments
    assert (frozen / "costs").is_file()


def test_a_server_that_cannot_start_says_why(product_home):
    with (
        pytest.raises(BidtrieError, match="cache_redis_url"),
        own_server(MODEL, ["iab-content"], ["--cache-redis-url", "http://nowhere"]),
    ):
        pass
