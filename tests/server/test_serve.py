"""Starting, and failing to start."""

import socket
from dataclasses import replace

import pytest
from bidtrie.errors import InvalidInput, ModelError
from bidtrie.server.metrics import Metrics
from bidtrie.server.serve import Ports, Server, serve
from server.conftest import OPTIONS, Running
from server.fake_backend import FakeBackend


async def test_ports_that_are_taken_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("grpc_port", "http_port"):
            server = Server(replace(OPTIONS, **{name: port}), Metrics())  # type: ignore[arg-type]
            with pytest.raises(InvalidInput, match=f"{name}: cannot listen on 127.0.0.1:{port}"):
                await server.start()
            await server.stop()


async def test_two_servers_do_not_share_a_port(running: Running) -> None:
    server = Server(replace(OPTIONS, grpc_port=running.ports.grpc), Metrics())
    with pytest.raises(InvalidInput, match="grpc_port"):
        await server.start()
    await server.stop()


async def test_a_backend_that_cannot_be_made_ends_serve() -> None:
    ports: list[Ports] = []

    def factory() -> FakeBackend:
        raise ModelError("cut off")

    with pytest.raises(ModelError, match="cut off"):
        await serve(OPTIONS, factory, Metrics(), on_listening=ports.append)
    assert ports[0].grpc > 0
    assert ports[0].http > 0


async def test_stop_closes_the_backend() -> None:
    server, backend = Server(OPTIONS, Metrics()), FakeBackend()
    await server.start()
    await server.load(lambda: backend)
    await server.stop()
    assert backend.closed
