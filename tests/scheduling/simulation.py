"""A scheduler on a virtual clock, with an engine whose steps take as long as a formula says."""

import copy
import heapq
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.scheduling.cost_model import CostModel
from bidtrie.scheduling.job import Job, OutOfTime, Plan
from bidtrie.scheduling.observer import Observer
from bidtrie.scheduling.scheduler import Level, Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape

#: Seconds: like a small model on two cores.
FIXED_S, NODE_S = 1.5e-3, 2.5e-4


def step_seconds(nodes: int) -> float:
    return FIXED_S + NODE_S * nodes


class World:
    """The clock, and what happens at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), event))

    def advance(self, until: float) -> None:
        """Let time pass; events happen at their time, also in the middle of a step."""
        while self._events and self._events[0][0] <= until:
            time, _, event = heapq.heappop(self._events)
            self.now = max(self.now, time)
            event()
        self.now = max(self.now, until)

    @property
    def next_event(self) -> float | None:
        return self._events[0][0] if self._events else None


class SimulatedEngine(Engine):
    """Takes virtual time; remembers its steps; a token 666 makes it fail."""

    def __init__(
        self, world: World, *, max_nodes: int = 64, seconds: Callable[[int], float] = step_seconds
    ) -> None:
        self.spec = EngineSpec("simulated", "0" * 16, 1000, 1000, max_nodes, 100_000, "none")
        self.world = world
        self.seconds = seconds
        self.steps: list[tuple[float, float, list[int]]] = []
        self.open_sequences: set[int] = set()
        self._sequence = itertools.count()

    def open(self, share: int | None = None, length: int | None = None) -> int:
        self.open_sequences.add(sequence := next(self._sequence))
        return sequence

    def close(self, sequence: int) -> None:
        self.open_sequences.remove(sequence)

    def length(self, sequence: int) -> int:
        assert sequence in self.open_sequences
        return 0

    def step(self, batch: TreeBatch) -> StepOutput:
        assert 0 < len(batch) <= self.spec.max_nodes
        if 666 in batch.tokens:
            raise ValueError("the engine broke")
        begin = self.world.now
        self.steps.append((begin, begin + self.seconds(len(batch)), sorted(set(batch.sequence.tolist()))))
        self.world.advance(begin + self.seconds(len(batch)))
        rows = len(batch.logits_for)
        return StepOutput(
            np.arange(len(batch), dtype=np.int32),
            np.arange(rows + 1, dtype=np.int64),
            np.zeros(rows, np.float32),
            np.full(rows, np.nan, np.float32),
        )

    def commit(self, sequence: int, nodes: Sequence[int]) -> None: ...
    def keep(self, nodes: Sequence[int]) -> None: ...
    def release(self, nodes: Sequence[int]) -> None: ...
    def free_slots(self) -> int:
        return 100_000


_USUAL: list[CostModel] = []


def knowing_model(seconds: Callable[[int], float] = step_seconds) -> CostModel:
    """A cost model that has learned the engine's formula."""
    if seconds is step_seconds and _USUAL:
        return copy.deepcopy(_USUAL[0])
    model = CostModel()
    for calibration in (True, False):
        for _ in range(50):
            for nodes in (1, 2, 4, 8, 16, 32, 64):
                shape = StepShape(nodes, 0, 0, 0, 0 if calibration else 1)
                model.learn(shape, seconds(nodes), calibration=calibration)
    if seconds is step_seconds:
        _USUAL.append(copy.deepcopy(model))
    return model


@dataclass(slots=True, eq=False)
class Asked:
    """A request of the simulation and what became of it."""

    arrival: float
    deadline: float
    steps: tuple[int, ...]
    service_class: ServiceClass = ServiceClass.TARGETING
    partial_after: int | None = None
    cancel_at: float | None = None
    fails: bool = False
    outcome: str = ""
    ended: float = float("nan")
    sequence: int = -1
    jobs: list[list[float]] = field(default_factory=list)
    """When each step of each job that was made for it began."""
    future: Future[Any] | None = None

    @property
    def dispatched(self) -> list[float]:
        """The steps of its own job; what an idle engine tries for nobody does not count."""
        return self.jobs[0] if self.future is not None and self.jobs else []


def asked_job(engine: SimulatedEngine, asked: Asked) -> Job[str]:
    sequence = asked.sequence = engine.open()
    begins: list[float] = []
    asked.jobs.append(begins)
    done = 0
    try:
        for i, nodes in enumerate(asked.steps):
            token = 666 if asked.fails and i == len(asked.steps) - 1 else 1
            yield TreeBatch.chain([token] * nodes, sequence)
            begins.append(engine.steps[-1][0])
            done += 1
        return "full"
    except OutOfTime:
        if asked.partial_after is not None and done >= asked.partial_after:
            return "partial"
        raise
    finally:
        engine.close(sequence)


class Simulation:
    """Requests against one scheduler, from the first arrival until nothing is left."""

    def __init__(
        self,
        requests: Sequence[Asked],
        *,
        engine: Callable[[World], SimulatedEngine] = SimulatedEngine,
        model: CostModel | None = None,
        max_requests: int = 256,
        max_step_s: float = 0.01,
        scheduler: type[Scheduler] = Scheduler,
        observer: Observer | None = None,
    ) -> None:
        self.world = World()
        self.engine = engine(self.world)
        self.most_in_flight = 0
        self.scheduler = scheduler(
            [Level(self.engine, model or knowing_model())],
            max_requests=max_requests,
            max_step_s=max_step_s,
            clock=lambda: self.world.now,
            observer=observer,
        )
        self.requests = list(requests)
        for asked in self.requests:
            self.world.at(asked.arrival, lambda asked=asked: self._submit(asked))
            if asked.cancel_at is not None:
                self.world.at(asked.cancel_at, lambda asked=asked: self._cancel(asked))

    def _submit(self, asked: Asked) -> None:
        plan: Plan[str] = Plan(
            "full",
            0,
            tuple(StepShape(nodes, 0, 0, 0, 1) for nodes in asked.steps),
            lambda: asked_job(self.engine, asked),
            least=asked.partial_after,
        )
        deadline = None if asked.deadline == float("inf") else asked.deadline
        try:
            asked.future = self.scheduler.submit([plan], deadline, asked.service_class)
        except Exception as error:
            assert not asked.outcome
            asked.outcome, asked.ended = type(error).__name__, self.world.now
            return
        self.most_in_flight = max(self.most_in_flight, self.scheduler.in_flight)
        asked.future.add_done_callback(lambda future: self._done(asked, future))

    def _cancel(self, asked: Asked) -> None:
        if asked.future is not None:
            asked.future.cancel()

    def _done(self, asked: Asked, future: Future[Any]) -> None:
        assert not asked.outcome, "a second final status"
        asked.ended = self.world.now
        if future.cancelled():
            asked.outcome = "cancelled"
        elif error := future.exception():
            asked.outcome = type(error).__name__
        else:
            asked.outcome = future.result().result

    def run(self, most_rounds: int = 100_000) -> None:
        for _ in range(most_rounds):
            wait = self.scheduler.round()
            if wait == 0.0:
                continue
            event = self.world.next_event
            if wait is None and event is None:
                return
            times = [
                time for time in (event, None if wait is None else self.world.now + wait) if time is not None
            ]
            self.world.advance(min(times))
        raise AssertionError("the simulation does not end")

    def in_time(self) -> int:
        """Full answers by their deadline."""
        return sum(
            asked.outcome == "full" and asked.ended <= asked.deadline + 1e-9 for asked in self.requests
        )
