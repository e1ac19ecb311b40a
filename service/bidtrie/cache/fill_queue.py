"""Answers that come too late for the request that wanted them, computed for the next one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bidtrie.cache.observer import CacheObserver
from bidtrie.errors import InvalidInput

logger = logging.getLogger(__name__)


class FillQueue:
    """Runs background fillings one after another, oldest first, each as a task of its own."""

    def __init__(self, limit: int, observer: CacheObserver | None = None) -> None:
        """`limit` counts the keys that wait and the one that runs; 0: none is ever taken. Raises InvalidInput."""
        if limit < 0:
            raise InvalidInput.of("limit", f"expected at least 0, got {limit}")
        self._limit = limit
        self._observer = observer or CacheObserver()
        # In order of arrival; the first one is running while there is a worker.
        self._fills: dict[str, Callable[[], Awaitable[object]]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        """Keys that wait or run."""
        return len(self._fills)

    def offer(self, key: str, compute: Callable[[], Awaitable[object]]) -> bool:
        """Whether the key will be filled; False where too many are waiting, or after `close`.

        A key that waits or runs already is not taken twice. `compute` stores the answer itself; what it raises is only
        counted, and a filling that never ends keeps the others waiting.
        """
        if key in self._fills:
            return True
        if self._closed or len(self._fills) >= self._limit:
            self.dropped += 1
            self._observer.fill("dropped")
            return False
        self._fills[key] = compute
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="bidtrie-fill")
        return True

    async def close(self) -> None:
        """Cancel the running filling, forget the waiting ones, and take no more."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.cancel()
            await asyncio.wait((worker,))
        # A worker that is cancelled before its first step never reaches its `finally`.
        self._fills.clear()

    async def _work(self) -> None:
        try:
            while self._fills:
                key = next(iter(self._fills))
                await self._run(self._fills[key])
                # Only now, so that the same key is not taken again while it runs.
                del self._fills[key]
        finally:
            self._fills.clear()
            self._worker = None

    async def _run(self, compute: Callable[[], Awaitable[object]]) -> None:
        async def fill() -> None:
            await compute()

        # A task, since a filling that ends cancelled (its engine was shut down) must not end the worker.
        task = asyncio.create_task(fill())
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()
            raise
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._observer.fill("done")
        else:
            self._observer.fill("failed")
            # The kind only: a message may quote what was asked.
            logger.debug("a background filling failed: %s", type(error).__name__)
