"""Answers in Redis, which replicas share. A dead or slow Redis costs hits, and never more than the time-out.

Requests never wait for a connection: one task connects, and while it has not, every lookup is a miss. After some
failures in a row lookups are not even tried, until that task has reached Redis again. Writes go through a bounded queue
that the same task empties.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any

from bidtrie.cache.observer import CacheObserver
from bidtrie.errors import InvalidInput

logger = logging.getLogger(__name__)

#: Changes when the values' encoding does.
PREFIX = "bidtrie:1:"
#: Half of what a request may lose to Redis: giving up and putting the connection away takes about as long.
TIMEOUT_S = 0.001
#: For what no request waits for: connecting, writing.
_PATIENCE_S = 0.5
_FAILURES = 3
_BACK_OFF_S, _MOST_BACK_OFF_S = 0.1, 5.0
_MOST_WRITES = 256
MOST_VALUE_BYTES = 1 << 20


class RedisStore:
    """Bytes by key. Used on one event loop; the first lookup begins to connect."""

    def __init__(self, url: str, *, lifetime_s: float, observer: CacheObserver | None = None) -> None:
        """Values live for `lifetime_s`. Raises InvalidInput naming `cache_redis_url`."""
        try:
            from redis.asyncio import Redis
            from redis.exceptions import RedisError
        except ImportError as error:
            expected = "needs the redis library: pip install 'bidtrie[redis]'"
            raise InvalidInput.of("cache_redis_url", expected) from error
        self._errors = (RedisError, OSError, ValueError)
        self._life_ms = max(1, round(1000 * lifetime_s))
        # The lifetime is part of the key, since an age is told by what is left of it: replicas whose settings differ,
        # as while a new one is rolled out, must not read each other's entries.
        self._prefix = f"{PREFIX}{self._life_ms}:"
        self._observer = observer or CacheObserver()
        try:
            self._client: Redis = Redis.from_url(
                url,
                socket_timeout=_PATIENCE_S,
                socket_connect_timeout=_PATIENCE_S,
                max_connections=64,
                decode_responses=False,
                retry=None,
            )
        except (ValueError, TypeError) as error:
            # Not the error's own text, which may quote the URL and the password in it.
            expected = "is not a URL of Redis, expected redis://HOST:PORT/DB, rediss://… or unix://PATH"
            raise InvalidInput.of("cache_redis_url", expected) from error
        self._up = False
        self._failures = 0
        self._writes: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MOST_WRITES)
        self._down = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _start(self) -> None:
        """Begin to connect: there is an event loop now."""
        if not self._tasks:
            self._down.set()
            self._tasks = [asyncio.create_task(self._connect()), asyncio.create_task(self._write())]

    async def get(self, key: str) -> tuple[bytes, float] | None:
        """A value and its age in seconds, within the time-out."""
        self._start()
        if not self._up:
            self._observer.remote_error("breaker")
            return None
        begin = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                value, left_ms = await self._fetch(self._prefix + key)
        except TimeoutError:
            self._failed("timeout")
            return None
        except self._errors:
            self._failed("connection")
            return None
        finally:
            self._observer.remote_seconds("get", time.monotonic() - begin)
        self._failures = 0
        if value is None or not isinstance(left_ms, int) or left_ms < 0:
            return None
        if not isinstance(value, bytes) or len(value) > MOST_VALUE_BYTES:
            self._observer.remote_error("decode")
            return None
        return value, max(0.0, (self._life_ms - left_ms) / 1000)

    async def _fetch(self, key: str) -> tuple[Any, Any]:
        # The value and its remaining life in one round trip; no clock but Redis' own is asked.
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.get(key)
            pipe.pttl(key)
            value, left_ms = await pipe.execute()
            return value, left_ms

    def put(self, key: str, value: bytes) -> None:
        """Write a value some time; dropped where too many wait or Redis is away."""
        if len(value) > MOST_VALUE_BYTES:
            return
        if not self._up:
            self._observer.remote_error("breaker")
            return
        try:
            self._writes.put_nowait((key, value))
        except asyncio.QueueFull:
            self._observer.remote_error("dropped")

    async def close(self) -> None:
        """Stop the tasks and close the connections; what is not written yet is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._up = False
        with contextlib.suppress(*self._errors):
            await self._client.aclose()

    def _failed(self, reason: str) -> None:
        self._observer.remote_error(reason)
        self._failures += 1
        if self._failures >= _FAILURES and self._up:
            self._up = False
            self._down.set()
            logger.warning("Redis is away", extra={"reason": reason})

    async def _connect(self) -> None:
        """Whenever Redis is down, try to reach it, more and more seldom."""
        while True:
            await self._down.wait()
            wait = _BACK_OFF_S
            while not await self._reached():
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MOST_BACK_OFF_S)
            self._failures = 0
            self._down.clear()
            self._up = True
            logger.info("Redis is reached")

    async def _reached(self) -> bool:
        """Whether Redis answers, and fast enough to be worth asking."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._client.ping()
            async with asyncio.timeout(2 * TIMEOUT_S):
                await self._client.ping()
        except (TimeoutError, *self._errors):
            return False
        return True

    async def _write(self) -> None:
        while True:
            key, value = await self._writes.get()
            begin = time.monotonic()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._client.set(self._prefix + key, value, px=self._life_ms)
            except TimeoutError:
                self._failed("timeout")
            except self._errors:
                self._failed("connection")
            finally:
                self._observer.remote_seconds("put", time.monotonic() - begin)
