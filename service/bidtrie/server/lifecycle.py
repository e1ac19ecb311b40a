"""Loading, ready, draining: whether calls are taken, which are running, and how they end when time is up."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from bidtrie.errors import NotReady
from bidtrie.server.backend import Backend
from bidtrie.server.metrics import Metrics


class State(StrEnum):
    """Only READY takes calls."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Lifecycle:
    """State of the server, shared by all services; used on the event loop only."""

    def __init__(self, metrics: Metrics) -> None:
        self.state = State.LOADING
        self.started_at = time.monotonic()
        self._metrics = metrics
        self._backend: Backend | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._evicted: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self.state is State.READY

    @property
    def backend(self) -> Backend | None:
        """The backend, once it is loaded."""
        return self._backend

    @property
    def in_flight(self) -> int:
        """Calls running."""
        return len(self._running)

    def set_ready(self, backend: Backend) -> None:
        """The backend is loaded. A server that was told to drain meanwhile stays draining."""
        self._backend = backend
        if self.state is State.LOADING:
            self.state = State.READY

    def set_draining(self) -> None:
        """Refuse calls from now on; those that are running go on."""
        self.state = State.DRAINING

    @contextmanager
    def call(self) -> Iterator[Backend]:
        """Around the work of one call. Raises NotReady where calls are not taken, or when this one is evicted."""
        if self._backend is None or self.state is not State.READY:
            raise NotReady(f"the server is {self.state}")
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._idle.clear()
        self._metrics.in_flight.inc()
        try:
            yield self._backend
        except asyncio.CancelledError:
            if task not in self._evicted:
                raise
            task.uncancel()
            raise NotReady("the server is shutting down") from None
        finally:
            self._running.discard(task)
            self._evicted.discard(task)
            self._metrics.in_flight.dec()
            if not self._running:
                self._idle.set()

    async def drain(self, seconds: float) -> int:
        """Wait for the running calls, at most `seconds`, then end those that are left; returns how many those were."""
        self.set_draining()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
            return 0
        except TimeoutError:
            late = set(self._running)
            self._evicted |= late
            for task in late:
                task.cancel()
            await self._idle.wait()
            return len(late)
