"""Loading, ready, draining: whether calls are taken, which are running, and how they end when time is up."""

import asyncio
import time
from enum import StrEnum
from types import TracebackType
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
        metrics.in_flight.set_function(lambda: len(self._running))
        metrics.ready.set_function(lambda: float(self.ready))
        self._backend: Backend | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._evicted: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        return self.state is State.READY and not self.lost

    @property
    def lost(self) -> bool:
        """Whether the backend can answer nothing any more until the process is started anew."""
        return self._backend is not None and self._backend.lost()

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

    def call(self) -> "Call":
        """Around the work of one call. Raises NotReady where calls are not taken, or when this one is evicted."""
        return Call(self)

    def begin(self, task: asyncio.Task[Any]) -> Backend:
        """A task takes up a call."""
        if self._backend is None or self.state is not State.READY:
            raise NotReady(f"the server is {self.state}")
        self._running.add(task)
        self._idle.clear()
        return self._backend

    def end(self, task: asyncio.Task[Any]) -> bool:
        """The task's call has ended; returns whether it was evicted."""
        evicted = task in self._evicted
        self._running.discard(task)
        self._evicted.discard(task)
        if not self._running:
            self._idle.set()
        return evicted

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


class Call:
    """The context of one call; a class, since it is entered for every request."""

    __slots__ = ("_lifecycle", "_task")

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def __enter__(self) -> Backend:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        return self._lifecycle.begin(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        evicted = self._lifecycle.end(self._task)
        if evicted and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise NotReady("the server is shutting down") from None
