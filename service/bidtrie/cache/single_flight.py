"""One computation for callers who ask for the same thing at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("abandoned", "task", "traceback", "waiters")

    def __init__(self) -> None:
        self.task: asyncio.Task[V]
        self.traceback: TracebackType | None = None
        self.waiters = 0
        self.abandoned = False


class SingleFlight(Generic[V]):
    """Runs at most one computation a key at any time; whoever comes meanwhile waits for the same one."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[V]] = {}

    def __len__(self) -> int:
        """Computations that run or are about to."""
        return len(self._flights)

    async def run(self, key: str, compute: Callable[[], Coroutine[Any, Any, V]]) -> tuple[V, bool]:
        """The value of `compute`, and whether it is of somebody else's computation, which began before this call.

        What `compute` raises when it is called is raised here at once, which is how a refusal costs no task. The
        coroutine that it returns is a task of its own: a caller that is cancelled frees only itself, and the
        computation is cancelled when no caller is left. Its exception is raised in every caller. A caller that comes
        after the end starts anew.
        """
        flight = self._flights.get(key)
        while flight is not None and flight.abandoned:
            # Cancelled, but not through with its cleaning up: a second one beside it would be two at a time.
            await asyncio.wait((flight.task,))
            flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = self._start(key, compute)
        flight.waiters += 1
        try:
            await asyncio.wait((flight.task,))
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.abandoned = True
                # After its first step, which is due before: a coroutine cancelled earlier could not clean up.
                asyncio.get_running_loop().call_soon(flight.task.cancel)
        if flight.task.cancelled():
            raise asyncio.CancelledError
        error = flight.task.exception()
        if error is not None:
            # The exception is one object for all: each caller's traceback begins where the computation's ended.
            raise error.with_traceback(flight.traceback)
        return flight.task.result(), joined

    def _start(self, key: str, compute: Callable[[], Coroutine[Any, Any, V]]) -> _Flight[V]:
        flight: _Flight[V] = _Flight()
        computation = compute()

        async def fly() -> V:
            try:
                return await computation
            except BaseException as error:
                flight.traceback = error.__traceback__
                raise
            finally:
                # Here and not in a callback, which would run later: the next caller must start anew.
                del self._flights[key]

        def end(task: asyncio.Task[V]) -> None:
            if not task.cancelled():
                # An abandoned computation may fail while it cleans up, and nobody is left to be told.
                task.exception()
            if self._flights.get(key) is flight:
                # Cancelled before its first step, as when the loop shuts down: `fly` never reached its `finally`.
                del self._flights[key]
                computation.close()

        self._flights[key] = flight
        flight.task = asyncio.create_task(fly())
        flight.task.add_done_callback(end)
        return flight
