"""Submits a request's plans to the scheduler and waits for the outcome, inside the request's budget."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from bidtrie.errors import DeadlineExceeded
from bidtrie.scheduling.entry import Outcome
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.serving.hand_off import HandOff

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Submitted(Generic[T]):
    """A request that was admitted, and until when its outcome is waited for; None: until it comes."""

    future: "Future[Outcome[T]]"
    until: float | None
    service_class: ServiceClass


class Dispatcher:
    """The way from the event loop to the engines' thread and back."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.hand_off = HandOff()

    async def run(
        self, plans: Sequence[Plan[T]], deadline: float | None, service_class: ServiceClass
    ) -> Outcome[T]:
        """`submit`, then `outcome`."""
        return await self.outcome(self.submit(plans, deadline, service_class))

    def submit(
        self,
        plans: Sequence[Plan[T]],
        deadline: float | None,
        service_class: ServiceClass,
        stand_in_s: float = 0.0,
    ) -> Submitted[T]:
        """Hand a request over, or raise at once what `Scheduler.submit` raises.

        The scheduler's deadline is earlier than `deadline` by what handing over takes. `outcome` gives up early enough
        for something else to be answered by `deadline`, which takes `stand_in_s` seconds.
        """
        if deadline is None:
            return Submitted(self.scheduler.submit(plans, None, service_class), None, service_class)
        reserve = self.hand_off.reserve_s
        # A step that takes longer than predicted must not take the answer with it.
        spare = reserve / 2 + stand_in_s
        future = self.scheduler.submit(plans, deadline - max(reserve, spare), service_class)
        return Submitted(future, deadline - spare, service_class)

    async def outcome(self, submitted: Submitted[T]) -> Outcome[T]:
        """The outcome of the plan that was admitted. Raises what its future does, and DeadlineExceeded."""
        until = submitted.until
        left = None if until is None else max(0.0, until - self.scheduler.clock())
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(submitted.future), left)
        except TimeoutError:
            self.scheduler.observer.shed(submitted.service_class, "expired")
            raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        self.hand_off.note(self.scheduler.clock() - outcome.stats.ended)
        return outcome
