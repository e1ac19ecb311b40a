"""A server of one's own in a process beside, for evaluation and demos."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from bidtrie.errors import BidtrieError

_STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens on 127.0.0.1."""

    grpc: int
    http: int
    pid: int = 0
    """The server's process."""


@contextmanager
def own_server(
    model: str, catalogs: Sequence[str] = (), arguments: Sequence[str] = (), *, module: str = "bidtrie"
) -> Iterator[Ports]:
    """Start `bidtrie serve` on free ports of the loopback address, yield when it is ready, end it afterwards.

    `module` is what Python runs in place of bidtrie, with the same command line.
    Raises BidtrieError with the server's last lines when it ends before it is ready.
    """
    command = [sys.executable, "-m", module, "serve", "--host", "127.0.0.1", "--grpc-port", "0"]
    command += ["--http-port", "0", "--model", model, *arguments]
    if catalogs:
        command += ["--catalogs", ",".join(catalogs)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # Whoever does not read a pipe stops the writer some day.
    reader = threading.Thread(target=_discard, args=(process.stderr,))
    try:
        ports = _wait_until_ready(process)
        reader.start()
        yield ports
    finally:
        end_process(process)
        if reader.ident is not None:
            reader.join()
        process.stderr.close()


def end_process(process: "subprocess.Popen[Any]", seconds: float = _STOP_SECONDS) -> None:
    """Ask a process to end with SIGTERM, and wait; kill it after `seconds`."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _discard(lines: IO[str]) -> None:
    for _ in lines:
        pass


def _wait_until_ready(process: "subprocess.Popen[str]") -> Ports:
    assert process.stderr is not None
    ports = None
    last: list[str] = []
    for line in process.stderr:
        last = [*last[-9:], line.rstrip()]
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "listening":
            ports = Ports(event["grpc_port"], event["http_port"], process.pid)
        elif event.get("event") == "ready" and ports is not None:
            return ports
    raise BidtrieError("the server ended before it was ready:\n" + "\n".join(last))
