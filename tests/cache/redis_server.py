"""A Redis server of the test's own, and peers that only pretend to be one."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import pytest


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """`redis-server` on a free port of 127.0.0.1 and a Unix socket, with nothing kept on disk; `kill` is kill -9."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.arguments = arguments
        self.folder = tempfile.TemporaryDirectory()
        self.socket_path = f"{self.folder.name}/redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("the tests of the shared cache need redis-server: tests/install_tools.sh installs it")
        command = [
            program,
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        command += ["--unixsocket", self.socket_path, "--dir", self.folder.name, *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            assert self.process.poll() is None, "redis-server ended at once"
            try:
                if b"PONG" in self.raw(b"PING") or self.arguments:
                    return
            except OSError:
                time.sleep(0.02)
        pytest.fail("redis-server does not answer")

    def raw(self, *command: bytes | str | int) -> bytes:
        """The bytes that Redis answers to one command, asked over a connection of its own."""
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        packed = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(packed)
            return connection.recv(1 << 20)

    def names(self) -> list[bytes]:
        """Every key that is there."""
        return self.raw("KEYS", "*").split(b"\r\n")[2::2]

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> "RedisServer":
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.folder.cleanup()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(talk: Talk) -> AsyncIterator[str]:
    """The URL of a server on this event loop that has its own idea of the protocol."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (OSError, RuntimeError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The other side has gone; uvloop calls writing to it then a RuntimeError.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def command(reader: asyncio.StreamReader) -> list[bytes]:
    """The next command of a client."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    parts = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts


async def eventually(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """What `attempt` gives once it gives something: connections take their time, and a busy machine misses."""
    for _ in range(1000):
        result = await attempt()
        if result is not None:
            return result
        await asyncio.sleep(0.01)
    pytest.fail("nothing came within ten seconds")
