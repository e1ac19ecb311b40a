"""The shared store beside a real Redis that dies, freezes and comes back, and beside peers that mean no good."""

import asyncio
import itertools
import logging
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bidtrie.cache.redis_store import RedisStore
from bidtrie.errors import InvalidInput
from cache.both_loops import on_both_loops
from cache.recording import Recording
from cache.redis_server import RedisServer, Talk, command, eventually, free_port, peer

LIFETIME_S = 100.0
SECRET = "open-sesame"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """An empty server, which a test must leave running."""
    shared_server.raw("FLUSHALL")
    return shared_server


@asynccontextmanager
async def opened(url: str, observer: Recording | None = None, **options: Any) -> AsyncIterator[RedisStore]:
    """A store, closed at the end."""
    store = RedisStore(url, **{"lifetime_s": LIFETIME_S, "observer": observer} | options)
    try:
        yield store
    finally:
        await store.close()


def tasks_of_the_store() -> list[str]:
    """What runs beside the test itself and what its peers run."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    names = [getattr(task.get_coro(), "__qualname__", "") for task in others]
    return [name for name in names if not name.startswith("peer.") and "_accept_connection" not in name]


async def hit(store: RedisStore, key: str) -> tuple[bytes, float]:
    result: tuple[bytes, float] = await eventually(lambda: store.get(key))
    return result


async def kept(store: RedisStore, key: str, value: bytes) -> tuple[bytes, float]:
    """Put until it arrives."""

    async def attempt() -> tuple[bytes, float] | None:
        store.put(key, value)
        await asyncio.sleep(0.005)
        return await store.get(key)

    result: tuple[bytes, float] = await eventually(attempt)
    return result


async def answering(store: RedisStore, observer: Recording) -> None:
    """Until Redis has answered a get, whatever the answer."""
    before = observer.remote["get"]

    async def attempt() -> bool | None:
        misses = sum(observer.errors.values())
        await store.get("nothing")
        return (observer.remote["get"] > before and sum(observer.errors.values()) == misses) or None

    await eventually(attempt)


async def seconds_of(lookups: int, store: RedisStore, key: str = "key") -> float:
    """How long so many gets in a row take, none of which may find anything."""
    begin = time.monotonic()
    for _ in range(lookups):
        assert await store.get(key) is None
    return time.monotonic() - begin


# A real Redis


@on_both_loops
async def test_a_value_comes_back_with_its_age(server: RedisServer) -> None:
    observer = Recording()
    async with opened(server.url, observer) as store:
        assert await store.get("key") is None
        value, age_s = await kept(store, "key", b"some \x00\xff bytes\r\n")
        assert value == b"some \x00\xff bytes\r\n"
        assert 0 <= age_s < 20
        assert observer.remote["get"] >= 1
        await eventually(lambda: observed(observer, "put"))


async def observed(observer: Recording, operation: str) -> bool | None:
    return observer.remote[operation] > 0 or None


@on_both_loops
async def test_the_age_is_what_redis_has_taken_off_the_lifetime(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await kept(store, "key", b"value")
        (name,) = server.names()
        server.raw("PEXPIRE", name, 40_000)
        _, age_s = await hit(store, "key")
        assert 60 <= age_s < 80


@on_both_loops
async def test_redis_itself_lets_values_expire_under_a_versioned_prefix(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await kept(store, "key", b"value")
        (name,) = server.names()
        assert name.startswith(b"bidtrie:1:")
        assert name.endswith(b"key")
        assert 0 < int(server.raw("PTTL", name)[1:]) <= LIFETIME_S * 1000
    async with opened(server.url, lifetime_s=0.05) as store:
        store.put("short", b"value")

        async def gone() -> bool | None:
            store.put("probe", b"value")
            return not any(name.endswith(b"short") for name in server.names()) or None

        await eventually(gone)


@on_both_loops
async def test_another_process_reads_the_value(server: RedisServer) -> None:
    async with opened(server.url) as writer, opened(server.url) as reader:
        await kept(writer, "key", b"value")
        assert (await hit(reader, "key"))[0] == b"value"


@pytest.mark.parametrize("lifetime_s", [LIFETIME_S / 2, LIFETIME_S * 2])
@on_both_loops
async def test_with_another_lifetime_the_age_would_be_wrong_and_nothing_is_read(
    server: RedisServer, lifetime_s: float
) -> None:
    async with opened(server.url) as writer, opened(server.url, lifetime_s=lifetime_s) as reader:
        await kept(writer, "key", b"value")
        await kept(reader, "other", b"value")
        for _ in range(20):
            assert await reader.get("key") is None


@on_both_loops
async def test_a_unix_socket_will_do(server: RedisServer) -> None:
    async with opened(f"unix://{server.socket_path}?db=1") as store:
        assert (await kept(store, "key", b"value"))[0] == b"value"
    assert server.names() == []


@on_both_loops
async def test_the_wall_clock_of_this_process_does_not_matter(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 4e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    async with opened(server.url) as store:
        await kept(store, "key", b"value")
        for _ in range(20):
            _, age_s = await hit(store, "key")
            assert 0 <= age_s < 20


@on_both_loops
async def test_after_kill_9_lookups_are_misses_and_hits_come_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    observer = Recording()
    with RedisServer() as server:
        async with opened(server.url, observer) as store:
            await kept(store, "key", b"value")
            server.kill()
            assert await seconds_of(100, store) < 0.5
            assert observer.errors["breaker"] > 50
            # Writes do not pile up.
            for number in range(1000):
                store.put(f"key{number}", b"value")
            server.start()
            assert (await kept(store, "key", b"again"))[0] == b"again"
    assert "WARNING" in caplog.text
    told = [(record.getMessage(), getattr(record, "url", None)) for record in caplog.records]
    assert ("the shared cache answers", server.url.removesuffix("/0")) in told
    assert ("the shared cache is out of reach", server.url.removesuffix("/0")) in told


@on_both_loops
async def test_a_redis_that_starts_later_is_found() -> None:
    with RedisServer() as server:
        server.kill()
        async with opened(server.url) as store:
            assert await seconds_of(100, store) < 0.5
            server.start()
            assert (await kept(store, "key", b"value"))[0] == b"value"


@on_both_loops
async def test_a_frozen_redis_costs_a_bounded_wait(server: RedisServer) -> None:
    observer = Recording()
    async with opened(server.url, observer) as store:
        await kept(store, "key", b"value")
        server.signal(signal.SIGSTOP)
        try:
            assert await seconds_of(100, store) < 0.5
            assert observer.errors["timeout"] >= 1
            begin = time.monotonic()
            for number in range(10_000):
                store.put(f"key{number}", b"value")
            assert time.monotonic() - begin < 2
            assert len(asyncio.all_tasks()) < 20
        finally:
            server.signal(signal.SIGCONT)
        assert (await hit(store, "key"))[0] == b"value"


@on_both_loops
async def test_waiting_writes_are_bounded_and_counted(server: RedisServer) -> None:
    observer = Recording()
    async with opened(server.url, observer) as store:
        await answering(store, observer)
        # Not one pass of the loop in between: nothing can be sent.
        for number in range(2000):
            store.put(f"key{number}", b"value")
        assert observer.errors["dropped"] >= 1000


@on_both_loops
async def test_every_key_gets_its_own_value_whoever_leaves_meanwhile(server: RedisServer) -> None:
    """An answer that nobody waits for any more must not be taken for the next one's."""
    random_numbers = random.Random(5)
    async with opened(server.url) as store:
        for number in range(40):
            await kept(store, f"key{number}", b"value %d" % number)
        hits = 0
        for _ in range(40):
            numbers = [random_numbers.randrange(50) for _ in range(30)]
            gets = [asyncio.create_task(store.get(f"key{number}")) for number in numbers]
            await asyncio.sleep(random_numbers.random() * 0.001)
            for get in random_numbers.sample(gets, 10):
                get.cancel()
            results = await asyncio.gather(*gets, return_exceptions=True)
            for number, result in zip(numbers, results, strict=True):
                if isinstance(result, tuple):
                    hits += 1
                    assert result[0] == b"value %d" % number
                else:
                    assert result is None or isinstance(result, asyncio.CancelledError)
        for number in range(40):
            assert (await hit(store, f"key{number}"))[0] == b"value %d" % number
        assert hits > 0


@on_both_loops
async def test_foreign_entries_are_misses(server: RedisServer) -> None:
    observer = Recording()
    async with opened(server.url, observer) as store:
        await kept(store, "key", b"value")
        (name,) = server.names()
        prefix = name.removesuffix(b"key")
        server.raw("SET", prefix + b"immortal", b"value")
        server.raw("SET", prefix + b"huge", b"x" * (4 << 20), "PX", 50_000)
        server.raw("LPUSH", prefix + b"list", b"value")
        server.raw("PEXPIRE", prefix + b"list", 50_000)
        server.raw("SET", prefix + b"too-young", b"value", "PX", 2 * int(LIFETIME_S * 1000))
        for key in ("immortal", "huge", "list", "too-young"):
            await answering(store, observer)
            assert await store.get(key) is None, key
        assert (await hit(store, "key"))[0] == b"value"


@on_both_loops
async def test_a_value_that_is_too_large_is_not_written(server: RedisServer) -> None:
    observer = Recording()
    async with opened(server.url, observer) as store:
        await answering(store, observer)
        store.put("huge", b"x" * (4 << 20))
        assert observer.errors["dropped"] == 1
        await kept(store, "key", b"value")
        assert len(server.names()) == 1


@on_both_loops
async def test_a_read_only_redis_still_answers() -> None:
    with (
        RedisServer("--repl-diskless-sync-delay", "0") as server,
        RedisServer("--replicaof", f"127.0.0.1 {server.port}") as replica,
    ):
        observer = Recording()
        async with opened(server.url) as writer, opened(replica.url, observer) as reader:
            await kept(writer, "key", b"value")
            await answering(reader, observer)
            reader.put("refused", b"value")
            assert (await hit(reader, "key"))[0] == b"value"


@on_both_loops
async def test_close_leaves_nothing_and_later_calls_are_misses(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await kept(store, "key", b"value")
        waiting = [asyncio.create_task(store.get("key")) for _ in range(10)]
        await store.close()
        for result in await asyncio.gather(*waiting):
            assert result is None or result[0] == b"value"
        assert await store.get("key") is None
        store.put("key", b"value")
        await store.close()
        assert tasks_of_the_store() == []


# Peers that are not what they should be


def after_a_good_start(behave: Talk, *, pings: bool = True) -> Talk:
    """Speaks the protocol until the first command that a store sends for a request."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            name, *_ = await command(reader)
            if name == b"PING" and pings:
                writer.write(b"+PONG\r\n")
            elif name in (b"CLIENT", b"SELECT", b"AUTH"):
                writer.write(b"+OK\r\n")
            else:
                await behave(reader, writer)
            await writer.drain()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 30)
    await asyncio.Event().wait()


async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.05)
    writer.write(b":-2\r\n$-1\r\n")


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise ConnectionResetError


def sends(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return talk


async def endless_bulk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"$900000000000\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()
        await asyncio.sleep(0.0001)


async def endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"+" * 65536)
        await writer.drain()
        await asyncio.sleep(0.0001)


GARBAGE = {
    "noise": random.Random(1).randbytes(4096),
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "not-a-number": b":many\r\n$x\r\n",
    "negative-size": b"$-7\r\n$-7\r\n",
    "strings-for-numbers": b"+1\r\n+1\r\n",
    "numbers-for-strings": b":5\r\n:5\r\n",
    "lists": b"*1\r\n$1\r\nx\r\n*0\r\n",
    "nested": b"*1\r\n" * 5000,
    "long-number": b":" + b"9" * 6000 + b"\r\n",
    "many-answers": b"$1\r\nx\r\n:5\r\n" * 500,
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n" * 2,
    "no-permission": b"-NOPERM no permissions\r\n" * 2,
    "moved": b"-MOVED 1 10.0.0.1:6379\r\n" * 2,
    "empty-error": b"-\r\n-\r\n",
    "bad-utf-8": b"-ERR \xff\xfe\r\n" * 2,
}
PEERS: dict[str, Talk] = {
    "accepts-and-never-answers": silent,
    "answers-nothing-but-pings": after_a_good_start(silent),
    "answers-after-50-ms": after_a_good_start(late),
    "pings-after-50-ms": after_a_good_start(late, pings=False),
    "hangs-up": after_a_good_start(hang_up),
    "hangs-up-at-once": hang_up,
    "endless-bulk": after_a_good_start(endless_bulk),
    "endless-line": after_a_good_start(endless_line),
} | {name: after_a_good_start(sends(answer)) for name, answer in GARBAGE.items()}


async def hundreds_of_misses(store: RedisStore) -> None:
    # Some before it is connected, some after, and some that meet it again after a back-off.
    assert await seconds_of(100, store) < 0.5
    await asyncio.sleep(0.15)
    for _ in range(10):
        assert await store.get("key") is None
        store.put("key", b"value")
        await asyncio.sleep(0.01)
    assert await seconds_of(100, store) < 0.5


@pytest.mark.parametrize("talk", PEERS.values(), ids=PEERS.keys())
@on_both_loops
async def test_a_bad_peer_costs_a_bounded_wait_and_only_misses(talk: Talk) -> None:
    async with peer(talk) as url:
        async with opened(url) as store:
            await hundreds_of_misses(store)
        assert tasks_of_the_store() == []


@on_both_loops
async def test_a_redis_that_recovers_from_slowness_is_used_again() -> None:
    slow = True

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if slow:
            await asyncio.sleep(0.05)
        writer.write(b"-ERR unknown command\r\n")

    observer = Recording()
    async with peer(after_a_good_start(behave)) as url, opened(url, observer) as store:

        async def late_once() -> bool | None:
            assert await store.get("key") is None
            return observer.errors["timeout"] > 0 or None

        await eventually(late_once)
        for _ in range(20):
            assert await store.get("key") is None
            await asyncio.sleep(0.005)
        slow = False
        misses = observer.remote["get"]

        async def answered() -> bool | None:
            await store.get("key")
            return observer.remote["get"] > misses or None

        await eventually(answered)


# Credentials


@pytest.mark.parametrize("user", ["", "default"])
@on_both_loops
async def test_a_password_opens_the_door(user: str) -> None:
    with RedisServer("--requirepass", SECRET) as server:
        url = f"redis://{user}:{SECRET}@127.0.0.1:{server.port}/0"
        async with opened(url) as store:
            assert (await kept(store, "key", b"value"))[0] == b"value"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Complains about every command by quoting it, as old servers do."""
    while True:
        parts = await command(reader)
        quoted = b" ".join(b"`" + part + b"`" for part in parts)
        writer.write(b"-ERR unknown command, with args beginning with: " + quoted + b"\r\n")


@on_both_loops
async def test_credentials_are_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer("--requirepass", "another") as refusing:
        async with peer(echo) as echoing:
            for address in (f"127.0.0.1:{refusing.port}", echoing[8:-2], f"127.0.0.1:{free_port()}"):
                url = f"redis://{SECRET}-user:{SECRET}@{address}/0"
                async with opened(url) as store:
                    for _ in range(10):
                        assert await store.get("key") is None
                        await asyncio.sleep(0.02)
                    assert SECRET not in repr(store)
                    assert SECRET not in str(store)
    assert SECRET not in caplog.text
    # What is not in the text of a log line, but in its fields, neither.
    assert {record.url for record in caplog.records if hasattr(record, "url")}
    assert not [record for record in caplog.records if SECRET in str(vars(record))]


WRONG_URLS = [
    "",
    "localhost",
    f"http://user:{SECRET}@localhost",
    f"redis://:{SECRET}@localhost:port",
    f"redis://:{SECRET}@localhost:70000",
    f"redis://:{SECRET}@localhost/first",
    f"redis://:{SECRET}@localhost/0/1",
    f"redis://:{SECRET}/x@localhost",
    f"redis://:12#{SECRET}@localhost",
    f"redis://:12?{SECRET}=1@localhost",
    f"redis://localhost#{SECRET}",
    f"redis://:{SECRET}@[::1",
    f"redis://:{SECRET}@localhost?db=many",
    f"redis://:{SECRET}@localhost?colour=red",
    f"redis://:{SECRET}@localhost?socket_timeout=60",
    f"rediss://:{SECRET}@localhost?ssl_cert_reqs=perhaps",
    f"redis://:{SECRET}@",
    f"unix://:{SECRET}@",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_wrong_url_is_named_and_not_quoted(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RedisStore(url, lifetime_s=1)
    assert [violation.field for violation in caught.value.violations] == ["cache_redis_url"]
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        # What a traceback would print below it.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:pass%23%2Fword@redis.example:6380/15",
        "rediss://:secret@redis.example?ssl_cert_reqs=none",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=2",
        "unix://:secret@/run/redis.sock",
    ],
)
def test_a_right_url_connects_to_nothing_yet(url: str) -> None:
    RedisStore(url, lifetime_s=1)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(InvalidInput, match=r"cache_redis_url.*bidtrie\[redis\]"):
        RedisStore("redis://localhost", lifetime_s=1)
