"""Memory and Redis together: which of them answers, with which age, and what wrong bytes do."""

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from bidtrie.cache.answer_cache import AnswerCache, Codec
from bidtrie.cache.hit import Hit
from bidtrie.cache.redis_store import RedisStore
from cache.both_loops import on_both_loops
from cache.recording import Recording
from cache.redis_server import RedisServer, eventually

FRESH_S, STALE_S = 60.0, 40.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def decode(data: bytes) -> str:
    text = data.decode()
    if not text.startswith("answer"):
        raise ValueError("not an answer")
    return text


CODEC: Codec[str] = Codec(str.encode, decode)


class FakeRemote:
    """A store whose answers the test decides, and that can hold them back."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, float]] = {}
        self.asked: list[str] = []
        self.written: dict[str, bytes] = {}
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key: str) -> tuple[bytes, float] | None:
        self.asked.append(key)
        found = self.held.get(key)
        await self.gate.wait()
        return found

    def put(self, key: str, value: bytes) -> None:
        self.written[key] = value

    async def close(self) -> None:
        self.closed = True


def cache_of(remote: Any = None, clock: Clock | None = None, **options: Any) -> AnswerCache[str]:
    standard: dict[str, Any] = {"max_bytes": 1 << 20, "fresh_s": FRESH_S, "stale_s": STALE_S}
    return AnswerCache(
        "some", CODEC, remote=cast(RedisStore | None, remote), clock=clock or Clock(), **standard | options
    )


async def test_memory_alone() -> None:
    clock = Clock()
    cache = cache_of(clock=clock)
    assert cache.peek("key") is None
    assert await cache.lookup("key") is None
    cache.store("key", "answer")
    clock.now += FRESH_S - 1
    assert cache.peek("key") == await cache.lookup("key") == Hit("answer", FRESH_S - 1, stale=False)
    clock.now += 1
    assert cache.peek("key") == await cache.lookup("key") == Hit("answer", FRESH_S, stale=True)
    clock.now += STALE_S
    assert cache.peek("key") is None
    await cache.close()


async def test_a_fresh_answer_in_memory_asks_nobody() -> None:
    remote = FakeRemote()
    cache = cache_of(remote)
    cache.store("key", "answer")
    assert remote.written == {"key": b"answer"}
    assert await cache.lookup("key") == Hit("answer", 0, stale=False)
    assert remote.asked == []


async def test_a_remote_answer_moves_into_memory_with_its_age() -> None:
    remote, clock = FakeRemote(), Clock()
    cache = cache_of(remote, clock)
    remote.held["key"] = (b"answer", FRESH_S - 10)
    assert cache.peek("key") is None
    assert remote.asked == []
    assert await cache.lookup("key") == Hit("answer", FRESH_S - 10, stale=False)
    clock.now += 9
    assert cache.peek("key") == Hit("answer", FRESH_S - 1, stale=False)
    clock.now += 1
    assert cache.peek("key") == Hit("answer", FRESH_S, stale=True)
    clock.now += STALE_S
    assert cache.peek("key") is None
    # What came from there is not written there.
    assert remote.written == {}


async def test_a_remote_answer_may_be_stale() -> None:
    remote = FakeRemote()
    remote.held["key"] = (b"answer", FRESH_S)
    assert await cache_of(remote).lookup("key") == Hit("answer", FRESH_S, stale=True)


async def test_of_two_stale_or_fresh_answers_the_younger_one_wins() -> None:
    remote, clock = FakeRemote(), Clock()
    cache = cache_of(remote, clock)
    cache.store("key", "answer here")
    clock.now += FRESH_S + 5
    remote.held["key"] = (b"answer there", FRESH_S + 6)
    assert await cache.lookup("key") == Hit("answer here", FRESH_S + 5, stale=True)
    # Another replica has computed it anew.
    remote.held["key"] = (b"answer there", 3)
    assert await cache.lookup("key") == Hit("answer there", 3, stale=False)
    assert cache.peek("key") == Hit("answer there", 3, stale=False)
    assert len(remote.asked) == 2


async def test_a_stale_answer_survives_a_redis_that_has_none() -> None:
    remote, clock = FakeRemote(), Clock()
    cache = cache_of(remote, clock)
    cache.store("key", "answer")
    clock.now += FRESH_S
    assert await cache.lookup("key") == Hit("answer", FRESH_S, stale=True)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"something else", b"answe"])
async def test_wrong_bytes_are_a_miss(data: bytes) -> None:
    remote, observer, clock = FakeRemote(), Recording(), Clock()
    cache = cache_of(remote, clock, observer=observer)
    remote.held["key"] = (data, 3)
    assert await cache.lookup("key") is None
    assert observer.errors == {"decode": 1}
    assert cache.peek("key") is None
    # A stale answer of one's own is better than that.
    cache.store("key", "answer")
    clock.now += FRESH_S
    assert await cache.lookup("key") == Hit("answer", FRESH_S, stale=True)


async def test_memory_is_bounded_by_what_answers_take() -> None:
    observer, remote = Recording(), FakeRemote()
    cache = cache_of(remote, max_bytes=10_000, observer=observer)
    for number in range(100):
        cache.store(f"key{number}", f"answer {number}" + "." * 1000)
    entries, size_bytes = observer.sizes["some"]
    assert 2 < entries < 10
    assert entries * 1000 < size_bytes <= 10_000
    assert observer.evicted == {"some": 100 - entries}
    cache.store("huge", "answer" + "." * 10_000)
    assert cache.peek("huge") is None
    remote.held["remote"] = (b"answer" + b"." * 10_000, 1)
    assert (await cache.lookup("remote")) is not None
    assert observer.sizes["some"][1] <= 10_000


async def test_clear_empties_memory_and_close_closes_redis() -> None:
    observer, remote = Recording(), FakeRemote()
    cache = cache_of(remote, observer=observer)
    cache.store("key", "answer")
    cache.clear()
    assert cache.peek("key") is None
    assert observer.sizes["some"] == (0, 0)
    await cache.close()
    assert remote.closed


async def test_an_answer_that_was_stored_meanwhile_is_not_replaced_by_an_older_one() -> None:
    remote = FakeRemote()
    cache = cache_of(remote)
    remote.held["key"] = (b"answer of old", 30)
    remote.gate.clear()
    lookup = asyncio.create_task(cache.lookup("key"))
    await asyncio.sleep(0)
    cache.store("key", "answer of now")
    remote.gate.set()
    assert await lookup == Hit("answer of now", 0, stale=False)
    assert cache.peek("key") == Hit("answer of now", 0, stale=False)


async def test_a_remote_answer_past_its_time_is_a_miss() -> None:
    remote = FakeRemote()
    cache = cache_of(remote)
    remote.held["key"] = (b"answer", FRESH_S + STALE_S)
    assert await cache.lookup("key") is None


async def test_the_wall_clock_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("the wall clock was asked")

    cache = AnswerCache("some", CODEC, max_bytes=1 << 20, fresh_s=FRESH_S, stale_s=STALE_S)
    monkeypatch.setattr(time, "time", forbidden)
    monkeypatch.setattr(time, "time_ns", forbidden)
    cache.store("key", "answer")
    hit = await cache.lookup("key")
    assert hit is not None
    assert 0 <= hit.age_s < FRESH_S


# With a real Redis between two replicas


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def replica(server: RedisServer, observer: Recording | None = None) -> AnswerCache[str]:
    remote = RedisStore(server.url, lifetime_s=FRESH_S + STALE_S, observer=observer)
    return AnswerCache(
        "some", CODEC, max_bytes=1 << 20, fresh_s=FRESH_S, stale_s=STALE_S, remote=remote, observer=observer
    )


async def shared(one: AnswerCache[str], other: AnswerCache[str], key: str) -> Hit[str]:
    """What `other` finds once `one` has written it."""

    async def attempt() -> Hit[str] | None:
        one.store(key, "answer for both")
        await asyncio.sleep(0.005)
        return await other.lookup(key)

    hit: Hit[str] = await eventually(attempt)
    return hit


@on_both_loops
async def test_replicas_share_answers_through_jumps_of_the_wall_clock(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 4e9, 100.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    one, other = replica(server), replica(server)
    try:
        hit = await shared(one, other, "jumps")
        assert hit.value == "answer for both"
        assert 0 <= hit.age_s < 20
        assert not hit.stale
        assert other.peek("jumps") is not None
    finally:
        await one.close()
        await other.close()


@on_both_loops
async def test_wrong_bytes_in_redis_are_a_miss(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.raw("FLUSHALL")
    observer = Recording()
    one, other = replica(server), replica(server, observer)
    try:
        await shared(one, other, "key")
        (name,) = server.names()
        other.clear()
        server.raw("SET", name, b"\xff of somebody else's", "PX", 50_000)

        async def refused() -> bool | None:
            assert await other.lookup("key") is None
            return observer.errors["decode"] > 0 or None

        await eventually(refused)
        assert "somebody else" not in caplog.text
    finally:
        await one.close()
        await other.close()
