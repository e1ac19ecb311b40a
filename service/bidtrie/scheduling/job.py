"""Jobs: what a request wants of the engine, written as one sequential piece of code.

A job is a generator that runs on the engine's thread. It yields a TreeBatch and is sent the
StepOutput of it; in between it may call the engine's verbs. What it needs beyond the next step it must commit or
keep as soon as it is resumed, since other jobs' steps may follow before its own. When its request is cancelled or
expires the generator is closed: `finally` gives back its sequences.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import StepOutput, TreeBatch

T = TypeVar("T")

Job = Generator[TreeBatch, StepOutput, T]


@dataclass(slots=True)
class JobStats:
    """Where a job's time went. Times in seconds; shared steps count in full for each job in them."""

    queue_s: float = 0.0
    engine_s: float = 0.0
    steps: int = 0
    nodes: int = 0


def run_alone(engine: Engine, job: Job[T]) -> T:
    """Run a job to its end on an engine that nobody else uses."""
    try:
        batch = next(job)
        while True:
            batch = job.send(engine.step(batch))
    except StopIteration as stop:
        result: T = stop.value
        return result
