import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

import grpc
import pytest
import uvloop
from bidtrie.server.metrics import Metrics
from bidtrie.server.serve import Ports, Server, ServerOptions
from bidtrie.v1 import admin_pb2_grpc, creative_pb2_grpc, targeting_pb2_grpc
from server.fake_backend import FakeBackend

OPTIONS = ServerOptions("127.0.0.1", 0, 0, drain_seconds=5.0)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that `bidtrie serve` runs on."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass(slots=True)
class Running:
    """A server on the test's own loop, and a channel to it."""

    server: Server
    backend: FakeBackend
    metrics: Metrics
    ports: Ports
    channel: grpc.aio.Channel

    @property
    def targeting(self) -> targeting_pb2_grpc.TargetingStub:
        return targeting_pb2_grpc.TargetingStub(self.channel)

    @property
    def creative(self) -> creative_pb2_grpc.CreativeStub:
        return creative_pb2_grpc.CreativeStub(self.channel)

    @property
    def admin(self) -> admin_pb2_grpc.AdminStub:
        return admin_pb2_grpc.AdminStub(self.channel)


async def _running(options: ServerOptions, *, loaded: bool = True) -> AsyncIterator[Running]:
    backend, metrics = FakeBackend(), Metrics()
    server = Server(options, metrics)
    ports = await server.start()
    if loaded:
        await server.load(lambda: backend)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        yield Running(server, backend, metrics, ports, channel)
    await server.stop()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async for each in _running(OPTIONS):
        yield each


@pytest.fixture
async def admin_running() -> AsyncIterator[Running]:
    async for each in _running(replace(OPTIONS, admin=True)):
        yield each


@pytest.fixture
async def loading() -> AsyncIterator[Running]:
    """A server whose backend is not loaded yet."""
    async for each in _running(OPTIONS, loaded=False):
        yield each
