"""What a request is left with when a step takes longer than its budget."""

import asyncio
import time

import pytest
from bidtrie.errors import DeadlineExceeded
from bidtrie.scheduling.engine_thread import EngineThread
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.observer import Observer
from bidtrie.scheduling.scheduler import Level, Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from bidtrie.serving.dispatch import Dispatcher
from scheduling.test_scheduler import CountingEngine, chain


class Sheds(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def shed(self, service_class: ServiceClass, reason: str) -> None:
        self.seen.append(reason)


async def test_a_step_that_takes_too_long_leaves_time_for_something_else():
    engine, heard = CountingEngine(), Sheds()
    scheduler = Scheduler([Level(engine)], max_requests=4, observer=heard)
    dispatcher = Dispatcher(scheduler)
    engines = EngineThread(scheduler)
    plan = Plan("full", 0, (StepShape(1, 0, 1, 0, 1),), lambda: chain(engine, [1]))
    engine.gate.clear()
    try:
        deadline = time.monotonic() + 0.5
        submitted = dispatcher.submit([plan], deadline, ServiceClass.TARGETING, stand_in_s=0.2)
        assert submitted.until is not None
        assert submitted.until <= deadline - 0.2
        with pytest.raises(DeadlineExceeded):
            await dispatcher.outcome(submitted)
        assert submitted.until <= time.monotonic() < deadline
        assert heard.seen == ["expired"]
        assert submitted.future.cancelled()
        engine.gate.set()
        assert (await dispatcher.run([plan], None, ServiceClass.TARGETING)).result == [1.0]
        assert heard.seen == ["expired"]
    finally:
        engine.gate.set()
        await asyncio.to_thread(engines.shutdown)
