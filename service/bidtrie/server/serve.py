"""The server: listens at once, loads the backend, serves, drains."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from bidtrie.errors import InvalidInput
from bidtrie.server.admin import Admin
from bidtrie.server.backend import Backend
from bidtrie.server.creative import Creative
from bidtrie.server.deadline import NO_LIMITS, Budget
from bidtrie.server.http import HttpServer
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.server.metrics import Metrics
from bidtrie.server.registration import WrappingServer
from bidtrie.server.targeting import Targeting
from bidtrie.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    creative_pb2,
    creative_pb2_grpc,
    targeting_pb2,
    targeting_pb2_grpc,
)

logger = logging.getLogger(__name__)

_SERVICES = tuple(
    file.services_by_name[name]
    for file, name in (
        (targeting_pb2.DESCRIPTOR, "Targeting"),
        (creative_pb2.DESCRIPTOR, "Creative"),
        (admin_pb2.DESCRIPTOR, "Admin"),
    )
)
#: Between two looks at whether the backend is lost.
_WATCH_SECONDS = 1.0
#: For the last responses to leave, after their handlers have ended.
_FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server listens and ends. A port of 0 picks a free one."""

    host: str = "0.0.0.0"
    grpc_port: int = 50051
    http_port: int = 8080
    max_message_bytes: int = 1 << 20
    drain_seconds: float = 10.0
    """How long running calls may go on after SIGTERM; what is left then is answered UNAVAILABLE."""
    admin: bool = False
    """Allow Admin.LoadCatalog and Admin.LoadModel."""
    budget: Budget = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens."""

    grpc: int
    http: int


class Server:
    """gRPC and HTTP on the running event loop. `start`, then `load`, then `stop`, each once."""

    def __init__(self, options: ServerOptions, metrics: Metrics) -> None:
        self._options = options
        self._lifecycle = Lifecycle(metrics)
        self._http = HttpServer(
            metrics.registry, lambda: self._lifecycle.ready, lambda: not self._lifecycle.lost
        )
        self._watch: asyncio.Task[None] | None = None
        self._grpc = grpc.aio.server(options=_channel_options(options))
        wrapping = WrappingServer(self._grpc, metrics)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, wrapping)
        targeting_pb2_grpc.add_TargetingServicer_to_server(
            Targeting(self._lifecycle, options.budget, metrics), wrapping
        )
        creative_pb2_grpc.add_CreativeServicer_to_server(
            Creative(self._lifecycle, options.budget, metrics), wrapping
        )
        admin = Admin(self._lifecycle, allowed=options.admin)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, wrapping)
        names = [service.full_name for service in _SERVICES]
        self._health_names = ("", *names)
        reflected = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(reflected), wrapping
        )
        for service in _SERVICES:
            for method in service.methods:
                kind = "server_stream" if method.server_streaming else "unary"
                metrics.method_series(kind, service.full_name, method.name)

    @property
    def in_flight(self) -> int:
        """Calls of bidtrie's services that are running."""
        return self._lifecycle.in_flight

    async def start(self) -> Ports:
        """Listen: calls are refused and health says NOT_SERVING until `load` is done.

        Raises InvalidInput naming the setting when an address cannot be listened on.
        """
        host, options = self._options.host, self._options
        address = f"[{host}]" if ":" in host else host
        await self._set_health(serving=False)
        try:
            http_port = await self._http.start(host, options.http_port)
        except OSError as error:
            raise _cannot_listen("http_port", address, options.http_port, error) from error
        try:
            await asyncio.to_thread(_try_port, host, options.grpc_port)
            grpc_port = self._grpc.add_insecure_port(f"{address}:{options.grpc_port}")
        except (OSError, RuntimeError) as error:
            await self._http.stop()
            raise _cannot_listen("grpc_port", address, options.grpc_port, error) from error
        await self._grpc.start()
        ports = Ports(grpc_port, http_port)
        logger.info("listening", extra={"host": host, "grpc_port": ports.grpc, "http_port": ports.http})
        return ports

    async def load(self, backend_factory: Callable[[], Backend]) -> None:
        """Make the backend on a thread, then take calls. What the factory raises is raised."""
        backend = await asyncio.to_thread(backend_factory)
        # What was loaded stays: a full collection over all of it would stop the loop for tens of milliseconds.
        gc.collect()
        gc.freeze()
        self._lifecycle.set_ready(backend)
        if self._lifecycle.ready:
            await self._set_health(serving=True)
            self._watch = asyncio.create_task(self._watch_backend())
            logger.info("ready")

    def refuse(self) -> None:
        """Take no calls from now on; ready is false at once."""
        self._lifecycle.set_draining()

    async def stop(self) -> None:
        """Refuse new calls, let the running ones end, then close everything."""
        self._lifecycle.set_draining()
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        running = self._lifecycle.in_flight
        logger.info("draining", extra={"running": running, "seconds": self._options.drain_seconds})
        ended = await self._lifecycle.drain(self._options.drain_seconds)
        await self._grpc.stop(_FLUSH_SECONDS)
        if self._lifecycle.backend is not None:
            await self._lifecycle.backend.close()
        await self._http.stop()
        gc.unfreeze()  # so that what is left is freed in order when the process ends
        logger.info("stopped", extra={"ended_early": ended})

    async def _watch_backend(self) -> None:
        """Tell gRPC's health checks, which are not asked but told, when the backend is lost."""
        while not self._lifecycle.lost:
            await asyncio.sleep(_WATCH_SECONDS)
        await self._set_health(serving=False)
        logger.error("the engine is lost: only a restart helps")

    async def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in self._health_names:
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)


def _try_port(host: str, port: int) -> None:
    """Raise the OSError with which listening would fail: gRPC keeps it to itself, and prints a line of its own."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As gRPC does: connections of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _cannot_listen(setting: str, address: str, port: int, error: Exception) -> InvalidInput:
    """The error for an address that cannot be listened on: why, and which flag changes it."""
    reason, flag = "", f"--{setting.replace('_', '-')}"
    if isinstance(error, OSError):
        # Of several addresses asyncio makes its own text; a name that is not found has a negative number.
        number = error.errno or 0
        reason = f": {os.strerror(number) if number > 0 else error.strerror}"
        if error.errno == errno.EADDRINUSE:
            reason += f"; choose another port with {flag} (0 picks a free one)"
        elif error.errno == errno.EACCES:
            reason += f"; choose a port from 1024 with {flag}"
        else:
            reason += "; --host says which address to listen on"
    return InvalidInput.of(setting, f"cannot listen on {address}:{port}{reason}")


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        # A second server on the same port would take half of the calls without anyone noticing.
        ("grpc.so_reuseport", 0),
        # Bid servers keep connections for days and ping through load balancers that forget idle ones.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


async def serve(
    options: ServerOptions,
    backend_factory: Callable[[], Backend],
    metrics: Metrics,
    *,
    on_listening: Callable[[Ports], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    Raises InvalidInput when a port is taken, and whatever the backend's factory raises.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        stopping.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, on_signal)
    server = Server(options, metrics)
    ports = await server.start()
    if on_listening is not None:
        on_listening(ports)
    loading = asyncio.create_task(server.load(backend_factory))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            server.refuse()
        # A thread cannot be stopped: a signal during loading takes effect when loading has ended.
        await loading
        await stop
    finally:
        stop.cancel()
        await server.stop()
