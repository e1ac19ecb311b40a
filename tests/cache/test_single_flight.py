"""One computation a key at any time, whoever comes, goes or fails meanwhile."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from bidtrie.cache.single_flight import SingleFlight
from hypothesis import given, settings
from hypothesis import strategies as st


async def passes(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Gate:
    """A computation that ends when it is told to, and counts how often it began and was cancelled."""

    def __init__(self) -> None:
        self.began = self.cancelled = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def compute(self) -> str:
        self.began += 1
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_a_hundred_callers_at_once_share_one_computation() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = Gate()
    callers = [asyncio.create_task(flights.run("key", gate.compute)) for _ in range(100)]
    await passes()
    gate.result.set_result("answer")
    answers = await asyncio.gather(*callers)
    assert gate.began == 1
    assert answers == [("answer", False)] + [("answer", True)] * 99
    assert len(flights) == 0


async def test_keys_do_not_share() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def compute() -> str:
        await passes()
        return "answer"

    answers = await asyncio.gather(*(flights.run(key, compute) for key in "abc"))
    assert answers == [("answer", False)] * 3


async def test_a_leader_that_leaves_does_not_take_the_answer_along() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = Gate()
    leader = asyncio.create_task(flights.run("key", gate.compute))
    await passes()
    follower = asyncio.create_task(flights.run("key", gate.compute))
    await passes()
    leader.cancel()
    await passes()
    assert leader.cancelled()
    gate.result.set_result("answer")
    assert await follower == ("answer", True)
    assert (gate.began, gate.cancelled) == (1, 0)


async def test_without_callers_the_computation_is_cancelled() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = Gate()
    callers = [asyncio.create_task(flights.run("key", gate.compute)) for _ in range(3)]
    await passes()
    for caller in callers[:2]:
        caller.cancel()
    await passes()
    assert gate.cancelled == 0
    callers[2].cancel()
    await passes()
    assert gate.cancelled == 1
    assert len(flights) == 0
    assert len(asyncio.all_tasks()) == 1
    gate.result.cancel()


async def test_a_caller_that_leaves_at_once_leaves_nothing_behind() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = Gate()
    caller = asyncio.create_task(flights.run("key", gate.compute))
    await asyncio.sleep(0)
    assert len(flights) == 1
    caller.cancel()
    await passes()
    assert gate.began == gate.cancelled
    assert len(flights) == 0
    gate.result.set_result("answer")
    assert await flights.run("key", gate.compute) == ("answer", False)


async def test_whoever_comes_while_a_cancelled_one_cleans_up_starts_anew_after_it() -> None:
    flights: SingleFlight[str] = SingleFlight()
    clean, running, most = asyncio.Event(), 0, 0

    async def compute() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if not clean.is_set():
                await asyncio.Event().wait()
            return "answer"
        finally:
            await clean.wait()
            running -= 1

    first = asyncio.create_task(flights.run("key", compute))
    await passes()
    first.cancel()
    await passes()
    later = [asyncio.create_task(flights.run("key", compute)) for _ in range(3)]
    await passes()
    assert (running, most) == (1, 1)
    clean.set()
    assert sorted(await asyncio.gather(*later)) == [("answer", False), ("answer", True), ("answer", True)]
    assert most == 1


async def test_an_exception_reaches_every_caller_with_a_traceback_of_its_own() -> None:
    flights: SingleFlight[str] = SingleFlight()
    lengths = []

    async def fail() -> str:
        await passes()
        raise RuntimeError("no answer")

    async def call() -> None:
        with pytest.raises(RuntimeError, match="no answer") as caught:
            await flights.run("key", fail)
        lengths.append(len(caught.traceback))

    await asyncio.gather(*(call() for _ in range(20)))
    # A traceback that all share would grow with every caller.
    assert len(lengths) == 20
    assert len(set(lengths)) == 1


async def test_a_computation_that_ends_cancelled_ends_its_callers_so() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def compute() -> str:
        await passes()
        raise asyncio.CancelledError

    results = await asyncio.gather(*(flights.run("key", compute) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert len(flights) == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_a_flight_is_over_the_moment_it_ends(fails: bool) -> None:
    """Before any callback of its task and any caller has run."""
    flights: SingleFlight[int] = SingleFlight()
    left: list[int] = []

    async def compute() -> int:
        await passes(2)
        # Runs next, before whatever the end of this task calls.
        asyncio.get_running_loop().call_soon(lambda: left.append(len(flights)))
        if fails:
            raise RuntimeError
        return 1

    await asyncio.gather(flights.run("key", compute), return_exceptions=True)
    assert left == [0]


async def test_nobody_hears_of_an_abandoned_computation_that_fails_to_clean_up() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    flights: SingleFlight[str] = SingleFlight()

    async def compute() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while cleaning up")

    caller = asyncio.create_task(flights.run("key", compute))
    await passes()
    caller.cancel()
    await passes()
    # A task complains when it is collected, and the caller's traceback leads to it.
    del caller
    gc.collect()
    await passes()
    assert complaints == []
    assert len(flights) == 0


def test_the_end_of_the_loop_leaves_no_flight_behind() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def compute() -> str:
        await asyncio.Event().wait()
        return "never"

    async def main() -> None:
        caller = asyncio.create_task(flights.run("key", compute))
        await asyncio.sleep(0)
        assert not caller.done()

    asyncio.run(main())
    assert len(flights) == 0

    async def again() -> tuple[str, bool]:
        return await flights.run("key", quick)

    async def quick() -> str:
        return "answer"

    assert asyncio.run(again()) == ("answer", False)


KEYS = "ab"
#: What happens, to which key, to which caller of those there are, and how many passes of the loop follow.
OPERATIONS = st.tuples(
    st.sampled_from(
        ["join", "join", "join slow", "cancel", "cancel", "leave", "finish", "fail", "clean", "settle"]
    ),
    st.sampled_from(KEYS),
    st.integers(0, 9),
    st.integers(0, 4),
)


class Interleaving:
    """Computations that end only when told to; checks after every step that no key has two of them."""

    def __init__(self) -> None:
        self.flights: SingleFlight[int] = SingleFlight()
        self.loop = asyncio.get_running_loop()
        self.running: Counter[str] = Counter()
        self.ends: dict[str, asyncio.Future[int]] = {}
        self.cleaning: dict[str, asyncio.Event] = {}
        self.callers: list[asyncio.Task[tuple[int, bool]]] = []
        self.keys: list[str] = []
        self.cancelled: set[int] = set()
        self.numbers = 0

    def computation(self, key: str, slow: bool) -> Callable[[], Awaitable[int]]:
        async def compute() -> int:
            self.running[key] += 1
            assert self.running[key] == 1, "two computations of a key at once"
            self.numbers += 1
            number = self.numbers
            end = self.ends[key] = self.loop.create_future()
            try:
                await end
                return number
            finally:
                if slow and end.cancelled():
                    clean = self.cleaning[key] = asyncio.Event()
                    await clean.wait()
                self.running[key] -= 1

        return compute

    async def step(self, what: str, key: str, which: int, pause: int) -> None:
        if what in ("join", "join slow"):
            computation = self.computation(key, what == "join slow")
            self.callers.append(asyncio.create_task(self.flights.run(key, computation)))
            self.keys.append(key)
        elif what == "cancel" and self.callers:
            self.cancel(which % len(self.callers))
        elif what == "leave":
            for index in self.waiting(key):
                self.cancel(index)
        elif what == "clean" and key in self.cleaning:
            self.cleaning[key].set()
        elif what in ("finish", "fail") and key in self.ends and not self.ends[key].done():
            if what == "finish":
                self.ends[key].set_result(0)
            else:
                self.ends[key].set_exception(RuntimeError())
        elif what == "settle":
            await passes(10)
            for each in KEYS:
                idle = each not in self.cleaning or self.cleaning[each].is_set()
                if idle:
                    assert self.running[each] == bool(self.waiting(each)), (
                        "a computation without callers, or without one"
                    )
        await passes(pause)

    def cancel(self, index: int) -> None:
        # A caller that has its answer stays answered.
        if self.callers[index].cancel():
            self.cancelled.add(index)

    def waiting(self, key: str) -> list[int]:
        return [
            index
            for index, caller in enumerate(self.callers)
            if self.keys[index] == key and not caller.done()
        ]

    async def end(self) -> None:
        """Let everything finish, and look at what each caller got."""
        for _ in range(200):
            for key in KEYS:
                await self.step("clean", key, 0, 0)
                await self.step("finish", key, 0, 0)
            await passes(3)
            if all(caller.done() for caller in self.callers) and not self.flights:
                break
        await passes(10)
        assert all(caller.done() for caller in self.callers), "a caller waits for ever"
        leaders: Counter[int] = Counter()
        for index, caller in enumerate(self.callers):
            if caller.cancelled():
                assert index in self.cancelled, "somebody else's cancellation ended a caller"
            elif caller.exception() is None:
                number, joined = caller.result()
                leaders[number] += not joined
            else:
                assert type(caller.exception()) is RuntimeError
        assert all(count <= 1 for count in leaders.values()), "two callers began one computation"
        assert len(self.flights) == 0
        assert +self.running == Counter()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task leaked"


@settings(max_examples=400)
@given(st.lists(OPERATIONS, max_size=40))
def test_any_interleaving(operations: list[tuple[str, str, int, int]]) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        interleaving = Interleaving()
        for operation in operations:
            await interleaving.step(*operation)
        await interleaving.end()

    asyncio.run(main())
    assert complaints == []
