"""Background filling: one at a time, each key once, never more than the limit."""

import asyncio
import logging

import pytest
from bidtrie.cache.fill_queue import FillQueue
from bidtrie.errors import InvalidInput
from cache.recording import Recording


async def passes(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_runs_at_a_time_and_the_oldest_first() -> None:
    running, most, order = 0, 0, []

    def filling(key: str):
        async def fill() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            order.append(key)
            await passes(3)
            running -= 1

        return fill

    observer = Recording()
    queue = FillQueue(10, observer)
    assert all(queue.offer(key, filling(key)) for key in "abcde")
    assert len(queue) == 5
    await passes(100)
    assert (most, order, len(queue)) == (1, list("abcde"), 0)
    assert observer.fills == {"done": 5}
    # The worker ends with its work and begins again.
    assert queue.offer("f", filling("f"))
    await passes()
    assert order[-1] == "f"
    assert len(asyncio.all_tasks()) == 1


async def test_a_key_is_taken_once_until_it_is_filled() -> None:
    gate, runs = asyncio.Event(), []

    async def fill() -> None:
        runs.append(1)
        await gate.wait()

    queue = FillQueue(2)
    assert queue.offer("key", fill)
    assert queue.offer("key", fill)
    await passes()
    assert queue.offer("key", fill)
    assert len(queue) == 1
    gate.set()
    await passes()
    assert len(runs) == 1
    assert queue.offer("key", fill)
    await passes()
    assert len(runs) == 2


async def test_what_is_beyond_the_limit_is_dropped_and_counted() -> None:
    gate, observer = asyncio.Event(), Recording()

    async def fill() -> None:
        await gate.wait()

    queue = FillQueue(2, observer)
    assert queue.offer("running", fill)
    await passes()
    assert queue.offer("waiting", fill)
    assert not queue.offer("dropped", fill)
    assert queue.dropped == observer.fills["dropped"] == 1
    assert len(queue) == 2
    gate.set()
    await passes()
    assert observer.fills == {"dropped": 1, "done": 2}
    assert not FillQueue(0).offer("key", fill)


async def test_a_failure_is_counted_and_hurts_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a page that somebody reads")

    async def end_cancelled() -> None:
        raise asyncio.CancelledError

    async def work() -> None:
        pass

    def break_at_once():
        raise RuntimeError("before anything could be awaited")

    caplog.set_level(logging.DEBUG, "bidtrie")
    observer = Recording()
    queue = FillQueue(10, observer)
    for key, compute in {"a": fail, "b": end_cancelled, "c": break_at_once, "d": work}.items():
        assert queue.offer(key, compute)
    await passes(60)
    assert observer.fills == {"failed": 3, "done": 1}
    assert "RuntimeError" in caplog.text
    assert "a page that somebody reads" not in caplog.text


async def test_close_cancels_what_runs_and_forgets_what_waits() -> None:
    ended, started = [], asyncio.Event()

    async def fill() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await passes(3)
            ended.append(1)

    async def never() -> None:
        raise AssertionError("a filling that waited was run after close")

    queue = FillQueue(10)
    queue.offer("running", fill)
    queue.offer("waiting", never)
    await started.wait()
    await queue.close()
    assert ended == [1]
    assert len(queue) == 0
    assert not queue.offer("late", never)
    await passes()
    assert len(asyncio.all_tasks()) == 1
    await queue.close()


async def test_close_before_the_first_step() -> None:
    async def never() -> None:
        raise AssertionError("a filling was run after close")

    queue = FillQueue(10)
    queue.offer("key", never)
    await queue.close()
    await passes()
    assert len(queue) == 0
    assert len(asyncio.all_tasks()) == 1


def test_a_negative_limit_is_named() -> None:
    with pytest.raises(InvalidInput, match="limit"):
        FillQueue(-1)
