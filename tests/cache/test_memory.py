"""The store in memory: its times to the tick, and its bound and order against a simple model."""

import time
from typing import Any

import pytest
from bidtrie.cache.hit import Hit
from bidtrie.cache.memory import ENTRY_OVERHEAD, MemoryStore
from bidtrie.errors import InvalidInput
from cache.recording import Recording
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

MEBIBYTE = 1 << 20


def test_a_value_is_fresh_then_stale_then_gone_exactly_at_the_bounds() -> None:
    store: MemoryStore[str] = MemoryStore(MEBIBYTE, fresh_s=8, stale_s=4)
    store.put("key", "value", 5, now=100)
    assert store.get("key", 100) == Hit("value", 0, stale=False)
    assert store.get("key", 107.9375) == Hit("value", 7.9375, stale=False)
    assert store.get("key", 108) == Hit("value", 8, stale=True)
    assert store.get("key", 111.9375) == Hit("value", 11.9375, stale=True)
    assert len(store) == 1
    assert store.get("key", 112) is None
    assert len(store) == 0
    assert store.size_bytes == 0


def test_without_a_stale_time_a_value_goes_when_it_is_no_longer_fresh() -> None:
    store: MemoryStore[str] = MemoryStore(MEBIBYTE, fresh_s=8)
    store.put("key", "value", 5, now=0)
    assert store.get("key", 7.5) == Hit("value", 7.5, stale=False)
    assert store.get("key", 8) is None


def test_a_value_brings_its_age_along() -> None:
    store: MemoryStore[str] = MemoryStore(MEBIBYTE, fresh_s=8, stale_s=4)
    store.put("key", "value", 5, now=100, age_s=7)
    assert store.get("key", 100.5) == Hit("value", 7.5, stale=False)
    assert store.get("key", 101) == Hit("value", 8, stale=True)
    store.put("old", "value", 5, now=100, age_s=12)
    assert store.get("old", 100) is None


def test_a_value_replaces_the_last_one_and_its_age() -> None:
    store: MemoryStore[str] = MemoryStore(MEBIBYTE, fresh_s=8)
    store.put("key", "first", 50, now=0)
    store.put("key", "second", 5, now=6)
    assert store.get("key", 10) == Hit("second", 4, stale=False)
    assert store.size_bytes == 3 + 5 + ENTRY_OVERHEAD


def test_what_was_used_last_stays() -> None:
    observer = Recording()
    entry = 1 + 10 + ENTRY_OVERHEAD
    store: MemoryStore[int] = MemoryStore(3 * entry, fresh_s=100, name="some", observer=observer)
    for number, key in enumerate("abc"):
        store.put(key, number, 10, now=0)
    assert store.get("a", 1) is not None
    store.put("d", 3, 10, now=1)
    assert [key for key in "abcd" if store.get(key, 1)] == ["a", "c", "d"]
    assert observer.evicted == {"some": 1}
    assert observer.sizes == {"some": (3, 3 * entry)}


def test_a_value_larger_than_the_whole_bound_is_not_kept_and_evicts_nobody() -> None:
    store: MemoryStore[str] = MemoryStore(ENTRY_OVERHEAD + 20, fresh_s=100)
    store.put("small", "value", 15, now=0)
    store.put("large", "value", 16, now=0)
    assert store.get("large", 0) is None
    assert store.get("small", 0) is not None
    # What it was to replace is out of date.
    store.put("small", "value", 16, now=0)
    assert store.get("small", 0) is None


def test_an_entry_past_its_time_makes_room_without_counting_as_evicted() -> None:
    observer = Recording()
    store: MemoryStore[int] = MemoryStore(ENTRY_OVERHEAD + 2, fresh_s=10, observer=observer)
    store.put("a", 0, 1, now=0)
    store.put("b", 0, 1, now=10)
    assert not observer.evicted
    store.put("c", 0, 1, now=11)
    assert observer.evicted == {"": 1}


def test_clear_forgets_everything() -> None:
    observer = Recording()
    store: MemoryStore[int] = MemoryStore(MEBIBYTE, fresh_s=10, observer=observer)
    store.put("a", 0, 1, now=0)
    store.clear()
    assert store.get("a", 0) is None
    assert store.size_bytes == 0
    assert observer.sizes == {"": (0, 0)}


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": -1}, {"fresh_s": -1.0}, {"stale_s": -0.5}, {"fresh_s": float("nan")}]
)
def test_a_wrong_bound_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        MemoryStore(**{"max_bytes": 1, "fresh_s": 1.0} | wrong)


def test_no_clock_of_its_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("the store asked a clock")

    for clock in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns"):
        monkeypatch.setattr(time, clock, forbidden)
    store: MemoryStore[int] = MemoryStore(MEBIBYTE, fresh_s=10)
    store.put("a", 0, 1, now=0)
    assert store.get("a", 1) is not None


class AgainstAList(RuleBasedStateMachine):
    """The model: a list, least recently used first, walked from end to end at every operation."""

    BOUND = 4 * (ENTRY_OVERHEAD + 40)
    FRESH, STALE = 8, 4

    def __init__(self) -> None:
        super().__init__()
        self.store: MemoryStore[int] = MemoryStore(self.BOUND, fresh_s=self.FRESH, stale_s=self.STALE)
        self.model: list[tuple[str, int, int, float]] = []
        self.now = 0.0
        self.values = 0

    def remove(self, key: str) -> None:
        self.model = [entry for entry in self.model if entry[0] != key]

    def counted(self) -> int:
        return sum(len(key) + size + ENTRY_OVERHEAD for key, _, size, _ in self.model)

    @rule(
        key=st.text("abc", min_size=1, max_size=2),
        size=st.one_of(st.integers(0, 60), st.sampled_from([400, 800, 1200, 1500, 3000])),
        age=st.sampled_from([0, 0, 0, 3, 8, 12, 20]),
    )
    def put(self, key: str, size: int, age: int) -> None:
        self.values += 1
        self.store.put(key, self.values, size, self.now, age)
        self.remove(key)
        if age < self.FRESH + self.STALE and len(key) + size + ENTRY_OVERHEAD <= self.BOUND:
            self.model.append((key, self.values, size, self.now - age))
            while self.counted() > self.BOUND:
                self.model.pop(0)

    @rule(key=st.text("abc", min_size=1, max_size=2))
    def get(self, key: str) -> None:
        expected = None
        for entry in [entry for entry in self.model if entry[0] == key]:
            self.remove(key)
            age = self.now - entry[3]
            if age < self.FRESH + self.STALE:
                self.model.append(entry)
                expected = Hit(entry[1], age, age >= self.FRESH)
        assert self.store.get(key, self.now) == expected

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model = []

    @invariant()
    def the_same_is_held_within_the_bound(self) -> None:
        assert len(self.store) == len(self.model)
        assert self.store.size_bytes == self.counted() <= self.BOUND


TestAgainstAList = AgainstAList.TestCase
