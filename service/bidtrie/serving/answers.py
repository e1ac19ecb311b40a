"""The cache in front of a model: hits, one computation for many equal requests, stand-ins, and filling up later."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bidtrie.cache.answer_cache import AnswerCache
from bidtrie.cache.fill_queue import FillQueue
from bidtrie.cache.single_flight import SingleFlight
from bidtrie.errors import DeadlineExceeded, Overloaded
from bidtrie.scheduling.recent_quantile import RecentQuantile
from bidtrie.serving.runtime_observer import RuntimeObserver

A = TypeVar("A")

#: How long stand-ins are taken to need: this quantile of so many; so many seconds before the first, and at most.
_WINDOW, _QUANTILE = 64, 0.95
_STAND_IN_S, _MOST_STAND_IN_S = 0.001, 0.02


@dataclass(frozen=True, slots=True)
class Question(Generic[A]):
    """What `Answers` must know of a request.

    key        all that changes the answer; empty: the answer is not to be cached
    compute    the answer within the request's budget; may be shared with equal requests. It raises Overloaded when it
               is called, or returns a coroutine
    fill       the full answer, whenever the engine is idle
    stand_in   an answer without the model; None: there is none
    fallback   whether a stand-in or a cached answer past its time is welcome
    accepts    whether an answer that was computed for an equal request is good enough for this one
    keeps      whether an answer is complete, so that it may be cached
    """

    key: str
    compute: Callable[[], Coroutine[Any, Any, A]]
    fill: Callable[[], Coroutine[Any, Any, A]]
    stand_in: Callable[[], A | None]
    fallback: bool
    accepts: Callable[[A], bool]
    keeps: Callable[[A], bool]


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """An answer and where it comes from: `age_s` is None where it was computed now."""

    answer: A
    age_s: float | None = None
    fallback: bool = False


class Answers(Generic[A]):
    """Answers questions of one kind."""

    def __init__(self, cache: AnswerCache[A], fills: FillQueue, observer: RuntimeObserver) -> None:
        self._cache = cache
        self._flights: SingleFlight[A] = SingleFlight()
        self._fills = fills
        self._observer = observer
        self._stand_ins = RecentQuantile(_WINDOW, _QUANTILE)

    @property
    def stand_in_s(self) -> float:
        """Seconds that a stand-in takes."""
        return min(self._stand_ins.value(), _MOST_STAND_IN_S) if self._stand_ins else _STAND_IN_S

    def peek(self, key: str) -> tuple[A, float] | None:
        """A fresh answer that lies in memory, and its age: the fast path, which needs no more than the key."""
        hit = self._cache.peek(key)
        if hit is None or hit.stale:
            return None
        self._observer.request("hit")
        return hit.value, hit.age_s

    async def answer(self, question: Question[A]) -> Answered[A]:
        """From the cache, the model or a stand-in. Raises Overloaded or DeadlineExceeded where none of them has one."""
        if not question.key:
            return await self._without_cache(question)
        hit = await self._cache.lookup(question.key)
        if hit is not None and not hit.stale:
            self._observer.request("hit")
            return Answered(hit.value, hit.age_s)
        if hit is not None and question.fallback:
            self._observer.request("stale")
            self._fill(question)
            return Answered(hit.value, hit.age_s, fallback=True)
        try:
            answer, joined = await self._flights.run(question.key, question.compute)
            self._observer.request("joined" if joined else "miss")
            if joined and not question.accepts(answer):
                answer = await question.compute()
        except (Overloaded, DeadlineExceeded) as error:
            self._observer.request("miss")
            self._fill(question)
            return self._stand_in(question, error)
        if question.keeps(answer):
            self._cache.store(question.key, answer)
        return Answered(answer)

    async def _without_cache(self, question: Question[A]) -> Answered[A]:
        try:
            return Answered(await question.compute())
        except (Overloaded, DeadlineExceeded) as error:
            return self._stand_in(question, error)

    def _fill(self, question: Question[A]) -> None:
        async def fill() -> None:
            answer = await question.fill()
            if question.keeps(answer):
                self._cache.store(question.key, answer)

        self._fills.offer(question.key, fill)

    def _stand_in(self, question: Question[A], error: Exception) -> Answered[A]:
        if not question.fallback:
            raise error
        begin = time.monotonic()
        answer = question.stand_in()
        if answer is None:
            raise error
        self._stand_ins.note(time.monotonic() - begin)
        return Answered(answer, fallback=True)
