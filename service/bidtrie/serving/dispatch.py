"""Submits a request's plans to the scheduler and waits for the outcome, inside the request's budget."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from bidtrie.errors import DeadlineExceeded
from bidtrie.scheduling.entry import Outcome
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.serving.hand_off import HandOff

T = TypeVar("T")


class Dispatcher:
    """The way from the event loop to the engines' thread and back."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.hand_off = HandOff()

    async def run(
        self, plans: Sequence[Plan[T]], deadline: float | None, service_class: ServiceClass
    ) -> Outcome[T]:
        """The outcome of the plan that was admitted.

        The scheduler's deadline is earlier than `deadline` by what handing over takes. Raises what `Scheduler.submit`
        and its future raise; DeadlineExceeded early enough for something else to be answered by `deadline`.
        """
        reserve = self.hand_off.reserve_s
        end = None if deadline is None else deadline - reserve
        future = self.scheduler.submit(plans, end, service_class)
        # A step that takes longer than predicted must not take the answer with it.
        left = None if deadline is None else max(0.0, deadline - reserve / 2 - self.scheduler.clock())
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(future), left)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        self.hand_off.note(self.scheduler.clock() - outcome.stats.ended)
        return outcome
