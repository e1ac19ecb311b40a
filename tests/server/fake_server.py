"""A server process with the fake backend: `python fake_server.py DRAIN_SECONDS [LOAD_SECONDS]`."""

import sys
import time

import uvloop
from bidtrie.server.logs import configure_logging
from bidtrie.server.metrics import Metrics
from bidtrie.server.serve import ServerOptions, serve
from fake_backend import FakeBackend


def main(drain_seconds: float, load_seconds: float = 0.0) -> None:
    def load() -> FakeBackend:
        time.sleep(load_seconds)
        return FakeBackend()

    configure_logging("info")
    options = ServerOptions("127.0.0.1", 0, 0, drain_seconds=drain_seconds)
    uvloop.run(serve(options, load, Metrics()))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
