"""HTTP for machines that watch the service: /metrics, /health/live, /health/ready.

Three fixed pages need no web framework. One request a connection, GET and HEAD only; a client has a few seconds and
8 KiB for its request, and there is a limit on connections, so that junk and slow clients cost next to nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 8_192
MAX_CONNECTIONS = 64
CLIENT_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Response:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[str, ...] = ()


def _plain(status: HTTPStatus, text: str = "", headers: tuple[str, ...] = ()) -> _Response:
    return _Response(status, f"{text or status.phrase.lower()}\n".encode(), headers=headers)


class HttpServer:
    """Serves a registry and the answers to "alive?" and "ready?"."""

    def __init__(
        self, registry: CollectorRegistry, ready: Callable[[], bool], alive: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._alive = alive
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port: port 0 picks a free one. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._connection, host, port, limit=MAX_REQUEST_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(CLIENT_SECONDS):
                    await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # slow or gone: nothing to tell it
        except Exception:
            logger.exception("HTTP request failed")
        finally:
            self._connections -= 1
            # Not `close()`, which waits for a client that reads nothing.
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, response = self._answer(head)
        except asyncio.LimitOverrunError:
            method, response = "GET", _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        lines = (
            f"HTTP/1.1 {response.status.value} {response.status.phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *response.headers,
        )
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        if method != "HEAD":
            writer.write(response.body)
        if writer.can_write_eof():
            writer.write_eof()
        # drain() returns at the low-water mark; the connection must not be cut before all is sent.
        writer.transport.set_write_buffer_limits(0)
        await writer.drain()

    def _answer(self, head: bytes) -> tuple[str, _Response]:
        """The request's method and the response to it."""
        try:
            first, *rest = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
            method, target, version = first.split(" ")
            headers = dict(_header(line) for line in rest)
        except ValueError:
            return "GET", _plain(HTTPStatus.BAD_REQUEST)
        if version not in ("HTTP/1.1", "HTTP/1.0") or not target.startswith("/"):
            return "GET", _plain(HTTPStatus.BAD_REQUEST)
        if method not in ("GET", "HEAD"):
            return method, _plain(HTTPStatus.METHOD_NOT_ALLOWED, headers=("Allow: GET, HEAD",))
        return method, self._page(target.partition("?")[0], headers)

    def _page(self, path: str, headers: Mapping[str, str]) -> _Response:
        match path:
            case "/metrics":
                encode, content_type = choose_encoder(headers.get("accept", ""))
                return _Response(HTTPStatus.OK, encode(self._registry), content_type)
            case "/health/live":
                if self._alive():
                    return _plain(HTTPStatus.OK, "alive")
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "restart me")
            case "/health/ready":
                if self._ready():
                    return _plain(HTTPStatus.OK, "ready")
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "not ready")
            case _:
                return _plain(HTTPStatus.NOT_FOUND)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError("not a header field")
    return name.lower(), value.strip()
