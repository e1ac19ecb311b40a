"""The HTTP port: probes, and clients that misbehave."""

import asyncio

import grpc
import pytest
from bidtrie.server import http, serve
from bidtrie.server.http import HttpServer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families
from server.conftest import Running


async def exchange(port: int, raw: bytes, *, finish: bool = False) -> bytes:
    """Everything that comes back for some bytes; nothing where the connection is reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    if finish:
        writer.write_eof()
    try:
        return await reader.read()
    except ConnectionResetError:  # the server closed before it had read everything
        return b""
    finally:
        writer.close()


async def get(port: int, path: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of a GET."""
    request = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""])
    head, _, body = (await exchange(port, request.encode())).partition(b"\r\n\r\n")
    first, *rest = head.decode("ascii").split("\r\n")
    fields = dict(line.split(": ", 1) for line in rest)
    assert int(fields["Content-Length"]) == len(body)
    return int(first.split()[1]), fields, body


async def test_probes_follow_the_lifecycle(loading: Running) -> None:
    port = loading.ports.http
    assert (await get(port, "/health/live"))[0] == 200
    assert (await get(port, "/health/ready"))[0] == 503
    await loading.server.load(lambda: loading.backend)
    assert (await get(port, "/health/ready"))[0] == 200
    loading.server.refuse()
    assert (await get(port, "/health/ready"))[0] == 503
    assert (await get(port, "/health/live"))[0] == 200


async def test_a_lost_engine_asks_for_a_restart(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_WATCH_SECONDS", 0.01)
    port = running.ports.http
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        running.backend.is_lost = True
        # Kubernetes takes it out of service by the one and starts it anew by the other.
        assert (await get(port, "/health/ready"))[0] == 503
        assert (await get(port, "/health/live"))[0] == 503
        assert b"bidtrie_ready 0.0" in (await get(port, "/metrics"))[2]
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/health", "/health/ready/x", "/../metrics"])
async def test_nothing_else_is_there(running: Running, path: str) -> None:
    assert (await get(running.ports.http, path))[0] == 404


async def test_metrics_in_both_formats(running: Running) -> None:
    status, fields, body = await get(running.ports.http, "/metrics?x=1")
    assert (status, fields["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert {family.name for family in text_string_to_metric_families(body.decode())} > {
        "bidtrie_queue_requests"
    }
    status, fields, body = await get(running.ports.http, "/metrics", "Accept: application/openmetrics-text")
    assert (status, fields["Content-Type"].split(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_head_has_no_body(running: Running) -> None:
    head, _, body = (
        await exchange(running.ports.http, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"DELETE / HTTP/1.1\r\n\r\n", b"405"),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400"),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nno field\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n folded: x\r\n\r\n", b"400"),
        (b"\xff\xfe\x00\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5_000 + b"\r\n", b"431"),
        (b"a" * 50_000, b"431"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_junk(running: Running, raw: bytes, status: bytes) -> None:
    answer = await exchange(running.ports.http, raw)
    assert answer.startswith(b"HTTP/1.1 " + status) or (answer == b"" and status == b"431")
    assert (await get(running.ports.http, "/health/live"))[0] == 200


async def test_clients_that_hang_up_or_say_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await exchange(running.ports.http, b"GET /met", finish=True) == b""
    assert await exchange(running.ports.http, b"", finish=True) == b""
    monkeypatch.setattr(http, "CLIENT_SECONDS", 0.05)
    assert await exchange(running.ports.http, b"GET /metrics HTTP/1.1\r\n") == b""
    monkeypatch.undo()
    assert (await get(running.ports.http, "/health/live"))[0] == 200


def large_registry() -> CollectorRegistry:
    """More than 6 MB, which is too much for the sockets' buffers."""
    registry = CollectorRegistry()
    gauge = Gauge("large", "A large metric.", ["n"], registry=registry)
    for i in range(60):
        gauge.labels("x" * 100_000 + str(i)).set(i)
    return registry


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CLIENT_SECONDS", 1.0)
    server = HttpServer(large_registry(), lambda: True, lambda: True)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(15) == b"HTTP/1.1 200 OK"
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(1.5)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(6_000_000)
    writer.close()
    assert (await get(port, "/health/live"))[0] == 200
    await server.stop()


async def test_all_of_a_large_page_arrives() -> None:
    """The negative control of the test above."""
    server = HttpServer(large_registry(), lambda: True, lambda: True)
    port = await server.start("127.0.0.1", 0)
    status, _, body = await get(port, "/metrics")
    assert status == 200
    assert len(body) > 6_000_000
    await server.stop()


async def test_connections_are_limited(running: Running) -> None:
    port = running.ports.http
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(http.MAX_CONNECTIONS)]
    try:
        assert await exchange(port, b"GET /health/live HTTP/1.1\r\n\r\n") == b""
    finally:
        for _, writer in idle:
            writer.close()
    async with asyncio.timeout(10):
        while not await exchange(port, b"GET /health/live HTTP/1.1\r\n\r\n"):
            await asyncio.sleep(0.01)
