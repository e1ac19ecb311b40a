"""The store in memory: bounded by bytes, least recently used leaves first, entries age."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from bidtrie.cache.hit import Hit
from bidtrie.cache.observer import CacheObserver
from bidtrie.errors import InvalidInput

V = TypeVar("V")

#: Bytes that an entry costs beside its key's characters and its value: the key's header, the table's slot and
#: link, and `_Entry` with its numbers. CPython 3.11 takes about 300 when measured with tracemalloc.
ENTRY_OVERHEAD = 320


@dataclass(slots=True, eq=False)
class _Entry(Generic[V]):
    value: V
    size: int
    born: float


class MemoryStore(Generic[V]):
    """Values by key. Every operation is O(1), apart from the evictions that a put pays for.

    A value is fresh while its age is below `fresh_s`, then stale for `stale_s` more, then gone. Times are seconds on
    the caller's monotonic clock. An entry counts as its key's length, its value's size and ENTRY_OVERHEAD.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        fresh_s: float,
        stale_s: float = 0.0,
        name: str = "",
        observer: CacheObserver | None = None,
    ) -> None:
        """Raises InvalidInput for a negative bound or time; `name` is what the observer is told."""
        for field, value in (("max_bytes", max_bytes), ("fresh_s", fresh_s), ("stale_s", stale_s)):
            if not value >= 0:
                raise InvalidInput.of(field, f"expected at least 0, got {value}")
        self._max_bytes = max_bytes
        self._fresh_s = fresh_s
        self._gone_s = fresh_s + stale_s
        self._name = name
        self._observer = observer or CacheObserver()
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries count together; never over the bound."""
        return self._bytes

    def get(self, key: str, now: float) -> Hit[V] | None:
        """The value under a key unless its time is over; it becomes the most recently used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = now - entry.born
        if age >= self._gone_s:
            self._remove(key)
            self._changed()
            return None
        self._entries.move_to_end(key)
        return Hit(entry.value, age, age >= self._fresh_s)

    def put(self, key: str, value: V, size: int, now: float, age_s: float = 0.0) -> None:
        """Keep a value of `size` bytes that was computed `age_s` seconds ago, in place of the key's last one.

        A value whose time is over, or that is larger than the whole bound, is not kept.
        """
        if key in self._entries:
            self._remove(key)
        counted = len(key) + size + ENTRY_OVERHEAD
        if age_s < self._gone_s and counted <= self._max_bytes:
            while self._bytes + counted > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.size
                # Entries leave memory when they are next asked for, so that what is evicted may be gone already.
                if now - oldest.born < self._gone_s:
                    self._observer.cache_evicted(self._name)
            self._entries[key] = _Entry(value, counted, now - age_s)
            self._bytes += counted
        self._changed()

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0
        self._changed()

    def _remove(self, key: str) -> None:
        self._bytes -= self._entries.pop(key).size

    def _changed(self) -> None:
        self._observer.cache_size(self._name, len(self._entries), self._bytes)
