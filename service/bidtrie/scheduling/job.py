"""Jobs: what a request wants of an engine, written as one sequential piece of code.

A job is a generator that runs on the engines' thread. It yields a TreeBatch and is sent the
StepOutput of it; in between it may call the engine's verbs. What it needs beyond the next step it must commit or
keep as soon as it is resumed, since other jobs' steps may follow before its own. When time does not cover the batch
that it yielded, OutOfTime is thrown in: the job returns what it has found by then, or lets OutOfTime pass where that is
nothing. When its request is cancelled the generator is closed. Either way `finally` gives back its sequences.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.scheduling.step_shape import StepShape

T = TypeVar("T")

Job = Generator[TreeBatch, StepOutput, T]

#: Most nodes that a job should put into one batch, now.
Chunk = Callable[[], int]


class OutOfTime(Exception):
    """Thrown into a job whose next step would end too late."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """One way to answer a request.

    level    which engine it runs on: 0 is the best, later ones are cheaper
    outline  the steps that it is expected to take
    make     called once, when the plan is chosen; the job runs on the engines' thread
    least    steps after which there is something to show, where a part of the answer is welcome; None: all of them
    learn    called with the steps that the job took when it ended of itself
    """

    name: str
    level: int
    outline: tuple[StepShape, ...]
    make: Callable[[], Job[T]]
    least: int | None = None
    learn: Callable[[list[StepShape]], None] = lambda shapes: None


@dataclass(slots=True)
class JobStats:
    """Where a job's time went. Times in seconds; shared steps count in full for each job in them."""

    queue_s: float = 0.0
    engine_s: float = 0.0
    steps: int = 0
    nodes: int = 0
    plan: str = ""
    level: int = 0
    ended: float = 0.0
    """When it ended, on the scheduler's clock."""
    shapes: list[StepShape] = field(default_factory=list)


def run_alone(engine: Engine, job: Job[T]) -> T:
    """Run a job to its end on an engine that nobody else uses."""
    try:
        batch = next(job)
        while True:
            batch = job.send(engine.step(batch))
    except StopIteration as stop:
        result: T = stop.value
        return result
