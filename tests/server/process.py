"""The fake server as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bidtrie

HERE = Path(__file__).parent


class ServerProcess:
    """A running process and the log lines that it has written so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._new_line = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._new_line:
                self.lines.append(json.loads(text))
                self._new_line.notify_all()

    def event(self, name: str) -> dict[str, Any]:
        """Wait for a log line."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if line["event"] == name]

        with self._new_line:
            assert self._new_line.wait_for(found, timeout=30), f"no {name!r} among {self.lines}"
            return found()[0]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        code = self.process.wait(timeout=30)
        self._reader.join()
        return code

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.event('listening')['grpc_port']}"

    @property
    def http_port(self) -> int:
        return int(self.event("listening")["http_port"])


@contextmanager
def fake_server(drain_seconds: float = 5.0, load_seconds: float = 0.0) -> Iterator[ServerProcess]:
    """A fake server; killed at the end if it still runs."""
    path = os.pathsep.join([str(Path(bidtrie.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_server.py"), str(drain_seconds), str(load_seconds)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        server.exit_code()
        assert process.stderr is not None
        process.stderr.close()
