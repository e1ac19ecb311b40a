"""Memory first, then Redis where there is one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bidtrie.cache.footprint import footprint
from bidtrie.cache.hit import Hit
from bidtrie.cache.memory import MemoryStore
from bidtrie.cache.observer import CacheObserver
from bidtrie.cache.redis_store import RedisStore

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Codec(Generic[V]):
    """How values become bytes and back; `decode` raises ValueError for bytes that are no value."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]


class AnswerCache(Generic[V]):
    """Values by key; used on one event loop."""

    def __init__(
        self,
        name: str,
        codec: Codec[V],
        *,
        max_bytes: int,
        fresh_s: float,
        stale_s: float,
        remote: RedisStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        observer: CacheObserver | None = None,
    ) -> None:
        self._codec = codec
        self._fresh_s = fresh_s
        self._gone_s = fresh_s + stale_s
        self._observer = observer or CacheObserver()
        self._memory: MemoryStore[V] = MemoryStore(
            max_bytes, fresh_s=fresh_s, stale_s=stale_s, name=name, observer=self._observer
        )
        self._remote = remote
        self._clock = clock

    def peek(self, key: str) -> Hit[V] | None:
        """What lies in memory."""
        return self._memory.get(key, self._clock())

    async def lookup(self, key: str) -> Hit[V] | None:
        """What lies in memory, else in Redis; waits for Redis no longer than its time-out."""
        hit = self.peek(key)
        if self._remote is None or (hit is not None and not hit.stale):
            return hit
        found = await self._remote.get(key)
        if found is None:
            return hit
        data, age_s = found
        # Asked again: an answer may have been stored here while Redis was asked for an older one.
        hit = self.peek(key)
        if age_s >= self._gone_s or (hit is not None and hit.age_s <= age_s):
            return hit
        try:
            value = self._codec.decode(data)
        except ValueError:
            self._observer.remote_error("decode")
            return hit
        self._memory.put(key, value, footprint(value), self._clock(), age_s)
        return Hit(value, age_s, age_s >= self._fresh_s)

    def store(self, key: str, value: V) -> None:
        """Keep a value that was computed now; Redis gets it in the background."""
        self._memory.put(key, value, footprint(value), self._clock())
        if self._remote is not None:
            self._remote.put(key, self._codec.encode(value))

    def clear(self) -> None:
        """Forget what lies in memory."""
        self._memory.clear()

    async def close(self) -> None:
        """Close the connection to Redis."""
        if self._remote is not None:
            await self._remote.close()
