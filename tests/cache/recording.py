"""An observer that remembers what it was told."""

from collections import Counter

from bidtrie.cache.observer import CacheObserver


class Recording(CacheObserver):
    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.evicted: Counter[str] = Counter()
        self.remote: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.fills: Counter[str] = Counter()

    def cache_size(self, cache: str, entries: int, size_bytes: int) -> None:
        self.sizes[cache] = (entries, size_bytes)

    def cache_evicted(self, cache: str) -> None:
        self.evicted[cache] += 1

    def remote_seconds(self, operation: str, seconds: float) -> None:
        assert seconds >= 0
        self.remote[operation] += 1

    def remote_error(self, reason: str) -> None:
        self.errors[reason] += 1

    def fill(self, outcome: str) -> None:
        self.fills[outcome] += 1
