"""A real Prometheus on the loopback address."""

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from bidtrie.serving.own_server import end_process
from deploy.prometheus_files import FOLDER, load_yaml

#: Bounds on hangs; a machine that is merely slow needs a fraction.
START_SECONDS = 30.0
STOP_SECONDS = 20.0

# Proxies are for what is not on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(command: Sequence[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that runs until the block ends; its output goes to a file of its name in `folder`."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield running
        finally:
            end_process(running, STOP_SECONDS)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Poll until the condition holds; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


class Prometheus:
    """The HTTP interface of one."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with _direct.open(f"{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer. Raises urllib.error.HTTPError where Prometheus refuses the query."""
        address = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with _direct.open(address, timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now, each with `metric` and `value`."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Prometheus on the project's configuration, but for the targets and intervals of a second."""
    config = load_yaml("prometheus.yml")
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with process(command, folder) as running:
        server = Prometheus(port)

        def ready() -> bool:
            log = folder / "prometheus.log"
            assert running.poll() is None, log.read_text()
            return server.ready()

        wait_for(ready, "Prometheus does not get ready")
        yield server
