"""Both clients against a server in another process; the blocking one is driven from a thread by the same tests."""

import asyncio
import inspect
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from bidtrie import __version__
from bidtrie.client import AsyncClient, Client
from bidtrie.client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    RequestFailed,
    Unavailable,
)
from bidtrie.errors import BidtrieError, Violation
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.v1.creative_pb2 import GenerateResponse, Product, Sampling, Slot
from bidtrie.v1.targeting_pb2 import RANKER_LLM, TargetResponse
from server.fake_backend import WORDS
from server.process import ServerProcess, fake_server

BID = BidRequest(id="auction", site={"name": "News", "content": {"title": "SUVs"}})
PRODUCT = Product(name="Shoes")


class Both:
    """Either client behind the asyncio client's methods."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        async def call(*arguments: object, **named: object) -> Any:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments, **named)
            return await asyncio.to_thread(method, *arguments, **named)

        return call

    async def stream(self, **named: Any) -> list[Any]:
        if isinstance(self.client, AsyncClient):
            return [item async for item in self.client.generate_stream(**named)]
        client = self.client
        return await asyncio.to_thread(lambda: list(client.generate_stream(**named)))


@pytest.fixture(params=["sync", "asyncio"])
async def client(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Both]:
    if request.param == "sync":
        with Client(server.grpc_address) as blocking:
            yield Both(blocking)
    else:
        async with AsyncClient(server.grpc_address) as asynchronous:
            yield Both(asynchronous)


async def test_target(client: Both) -> None:
    response: TargetResponse = await client.target(
        title="t", keywords=["a", "b"], candidates=["x", "y"], top_k=2, ranker=RANKER_LLM, request_id="r"
    )
    assert response.request_id == "r"
    assert [segment.id for segment in response.segments] == ["x", "y"]


@pytest.mark.parametrize("bid_request", [BID, BID.SerializeToString()], ids=["message", "bytes"])
async def test_bid_requests(client: Both, bid_request: BidRequest | bytes) -> None:
    response: TargetResponse = await client.target(bid_request=bid_request)
    assert response.request_id == "auction"
    assert len(response.segments) == 3


async def test_a_context_and_a_bid_request_exclude_each_other(client: Both) -> None:
    with pytest.raises(ValueError, match="not both"):
        await client.target(title="t", bid_request=BID)


async def test_generate(client: Both) -> None:
    response: GenerateResponse = await client.generate(
        product=PRODUCT, slots=[Slot(name="a")], candidates=2, sampling=Sampling(temperature=1, seed=9)
    )
    assert [each.text for each in response.creatives] == ["".join(WORDS)] * 2
    assert response.seed == 9


async def test_generate_stream(client: Both) -> None:
    *pieces, response = await client.stream(product=PRODUCT)
    assert "".join(piece.text for piece in pieces) == "".join(WORDS)
    assert isinstance(response, GenerateResponse)
    assert response.creatives[0].text == "".join(WORDS)


async def test_status(client: Both) -> None:
    status = await client.status()
    assert status.ready
    assert status.version == __version__


async def test_violations(client: Both) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.target(title="t", top_k=0, tmax_ms=-1)
    assert caught.value.violations == (
        Violation("top_k", "must be 1 to 50, is 0"),
        Violation("tmax_ms", "must be 1 to 60,000 milliseconds, is -1"),
    )
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(caught.value, BidtrieError)


async def test_overload(client: Both) -> None:
    with pytest.raises(Overloaded) as caught:
        await client.target(title="raise=overloaded")
    assert caught.value.retry_after_s == 0.25
    with pytest.raises(Overloaded) as caught:
        await client.target(title="x" * (2 << 20))
    assert caught.value.retry_after_s is None


async def test_time_outs(client: Both) -> None:
    with pytest.raises(DeadlineExceeded):
        await client.target(title="sleep=3600", timeout_ms=50)
    with pytest.raises(DeadlineExceeded):
        await client.target(title="sleep=3600", tmax_ms=20, timeout_ms=60_000)
    with pytest.raises(DeadlineExceeded):
        await client.generate(product=Product(name="sleep=3600"), timeout_ms=50)
    with pytest.raises(DeadlineExceeded):
        await client.stream(product=Product(name="sleep=3600"), timeout_ms=50)


async def test_other_failures(client: Both) -> None:
    for call in (client.load_catalog("x"), client.load_model("x")):
        with pytest.raises(RequestFailed, match="PERMISSION_DENIED") as caught:
            await call
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(RequestFailed, match="INTERNAL: internal error"):
        await client.target(title="raise=defect")


def test_closing_a_stream_cancels_the_call(server: ServerProcess) -> None:
    with Client(server.grpc_address) as client:
        stream = client.generate_stream(product=Product(name="sleep=0.05"), candidates=16)
        assert next(stream).text == WORDS[0]  # type: ignore[union-attr]
        stream.close()
        _until_idle(client)


async def test_closing_an_asynchronous_stream_cancels_the_call(server: ServerProcess) -> None:
    async with AsyncClient(server.grpc_address) as client:
        async with aclosing(
            client.generate_stream(product=Product(name="sleep=0.05"), candidates=16)
        ) as stream:
            assert (await anext(stream)).text == WORDS[0]  # type: ignore[union-attr]
        with Client(server.grpc_address) as blocking:
            await asyncio.to_thread(_until_idle, blocking)


async def test_cancelling_the_waiting_task_cancels_the_call(server: ServerProcess) -> None:
    async with AsyncClient(server.grpc_address) as client:
        task = asyncio.create_task(client.target(title="sleep=3600", timeout_ms=60_000))
        while (await client.status()).requests_in_flight == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with Client(server.grpc_address) as blocking:
            await asyncio.to_thread(_until_idle, blocking)


def _until_idle(client: Client) -> None:
    end = time.monotonic() + 10
    while client.status().requests_in_flight:
        assert time.monotonic() < end, "the call is still in flight"
        time.sleep(0.01)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(Unavailable):
        client.target(title="t")


def test_wait_for_ready_waits_until_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with Client(f"127.0.0.1:{port}", wait_for_ready=True) as client, pytest.raises(DeadlineExceeded):
        client.target(title="t", timeout_ms=100)


def test_a_loading_server_is_unavailable() -> None:
    with fake_server(load_seconds=2) as server, Client(server.grpc_address) as client:
        with pytest.raises(Unavailable, match="loading"):
            client.target(title="t", timeout_ms=10_000)
        assert not client.status(timeout_ms=10_000).ready
        server.event("ready")
        assert client.target(title="t", timeout_ms=10_000).segments
