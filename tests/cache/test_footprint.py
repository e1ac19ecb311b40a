"""Footprints beside what the allocator says."""

import gc
import tracemalloc
from dataclasses import dataclass

import pytest
from bidtrie.cache.footprint import footprint
from bidtrie.cache.memory import ENTRY_OVERHEAD, MemoryStore
from bidtrie.requests import ScoredSegment, Source, TargetAnswer


def answer(number: int) -> TargetAnswer:
    """An answer whose every text is its own."""
    segments = tuple(
        ScoredSegment(
            f"id{number}.{rank}",
            f"Name {number}.{rank}",
            (f"Tier {number}", f"N{number}.{rank}"),
            number + 0.5,
        )
        for rank in range(3)
    )
    return TargetAnswer(segments, Source.BOTH, f"catalog {number}", f"version {number}")


def test_a_store_takes_about_as_much_as_it_counts() -> None:
    count = 500
    store: MemoryStore[TargetAnswer] = MemoryStore(1 << 30, fresh_s=1)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            value = answer(number)
            store.put(f"{number:032x}", value, footprint(value), now=float(number))
        del value
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * taken < store.size_bytes < 1.5 * taken
    assert store.size_bytes > count * ENTRY_OVERHEAD


def test_what_is_held_twice_counts_once() -> None:
    text = "a text of some length" * 10
    assert footprint((text, text)) == footprint((text, None))
    assert footprint((text, text[:-1])) > 1.8 * footprint(text)


def test_containers_and_dataclasses_are_walked() -> None:
    @dataclass
    class Plain:
        inner: object

    long = "x" * 10_000
    for held in (
        (long,),
        [long],
        {long},
        frozenset({long}),
        {"key": long},
        {long: 1},
        Plain(long),
        ((([long],),),),
    ):
        assert footprint(held) > 10_000


def test_a_value_that_holds_itself_ends() -> None:
    held: list[object] = []
    held.append(held)
    assert footprint(held) == pytest.approx(footprint([]), abs=100)
