"""The cache in front of the model, on answers that are numbers."""

import asyncio
import time

import pytest
from bidtrie.cache.answer_cache import AnswerCache, Codec
from bidtrie.cache.fill_queue import FillQueue
from bidtrie.errors import DeadlineExceeded, InvalidInput, Overloaded
from bidtrie.serving.answers import Answers, Question
from bidtrie.serving.runtime_observer import RuntimeObserver


class Requests(RuntimeObserver):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def request(self, result: str) -> None:
        self.seen.append(result)


class World:
    """A cache on a clock of its own, and a model that counts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.requests = Requests()
        self.computed = 0
        self.error: Exception | None = None
        codec = Codec(lambda value: str(value).encode(), lambda data: int(data))
        cache = AnswerCache(
            "numbers", codec, max_bytes=10_000, fresh_s=10, stale_s=10, clock=lambda: self.now
        )
        self.fills = FillQueue(4)
        self.answers = Answers(cache, self.fills, self.requests)

    async def compute(self) -> int:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.computed += 1
        return self.computed

    async def fill(self) -> int:
        self.computed += 1
        return 100 + self.computed

    def question(self, key: str = "k", **changes) -> Question[int]:
        return Question(
            **{
                "key": key,
                "compute": self.compute,
                "fill": self.fill,
                "stand_in": lambda: -1,
                "fallback": True,
                "accepts": lambda answer: True,
                "keeps": lambda answer: True,
            }
            | changes
        )

    async def ask(self, **changes) -> tuple[int, float | None, bool]:
        found = await self.answers.answer(self.question(**changes))
        return found.answer, found.age_s, found.fallback


async def test_a_second_request_is_a_hit_until_it_is_stale():
    world = World()
    assert await world.ask() == (1, None, False)
    world.now = 9.0
    assert await world.ask() == (1, 9.0, False)
    assert world.answers.peek("k") == (1, 9.0)
    world.now = 11.0
    assert world.answers.peek("k") is None
    assert await world.ask() == (1, 11.0, True)
    await asyncio.sleep(0.01)
    assert await world.ask() == (102, 0.0, False), "it was computed anew meanwhile"
    assert world.requests.seen == ["miss", "hit", "hit", "stale", "hit"]


async def test_who_wants_no_stand_in_gets_no_stale_answer():
    world = World()
    await world.ask()
    world.now = 11.0
    assert await world.ask(fallback=False) == (2, None, False)


@pytest.mark.parametrize("error", [Overloaded("full", 0.1), DeadlineExceeded("late")])
async def test_without_time_something_stands_in_and_the_answer_follows(error):
    world = World()
    world.error = error
    assert await world.ask() == (-1, None, True)
    await asyncio.sleep(0.01)
    assert await world.ask() == (101, 0.0, False)
    for changes in ({"fallback": False}, {"stand_in": lambda: None}):
        with pytest.raises(type(error)):
            await world.ask(key="other", **changes)
    with pytest.raises(type(error)):
        await world.ask(key="", fallback=False)
    assert await world.ask(key="") == (-1, None, True)


async def test_a_refusal_takes_no_task_and_teaches_how_long_a_stand_in_takes():
    world = World()
    assert world.answers.stand_in_s == 0.001

    def refuse():
        raise Overloaded("no", retry_after_s=1.0)

    def slow_stand_in() -> int:
        time.sleep(0.005)
        return -2

    tasks = len(asyncio.all_tasks())
    question = world.question(key="", compute=refuse, stand_in=slow_stand_in)
    coroutine = world.answers.answer(question)
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)  # it never waits
    assert stopped.value.value.answer == -2
    assert len(asyncio.all_tasks()) == tasks
    assert 0.005 <= world.answers.stand_in_s <= 0.02


async def test_other_errors_are_no_reason_for_a_stand_in():
    world = World()
    world.error = InvalidInput.of("top_k", "is wrong")
    with pytest.raises(InvalidInput):
        await world.ask()
    assert len(world.fills) == 0


async def test_what_is_not_complete_is_not_kept():
    world = World()
    assert await world.ask(keeps=lambda answer: False) == (1, None, False)
    assert await world.ask() == (2, None, False)


async def test_many_at_once_share_one_computation_unless_it_does_not_suit_them():
    world = World()
    found = await asyncio.gather(*(world.ask() for _ in range(50)))
    assert {answer for answer, _, _ in found} == {1}
    assert sorted(world.requests.seen) == ["joined"] * 49 + ["miss"]
    other = World()
    picky = other.ask(accepts=lambda answer: answer > 1)
    first, second = await asyncio.gather(other.ask(), picky)
    assert (first[0], second[0]) == (1, 2)


async def test_without_a_key_nothing_is_remembered():
    world = World()
    assert [(await world.ask(key=""))[0] for _ in range(3)] == [1, 2, 3]
    assert world.requests.seen == []
