"""The engine's thread: joins what waiting jobs want into one tree batch a step.

Oldest first: a step takes the jobs in order of arrival while their nodes fit. Every job gets its turn, since the
oldest always fits. Jobs whose request was cancelled or whose deadline has passed leave before the next step.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Joined, StepOutput, TreeBatch
from bidtrie.errors import DeadlineExceeded, EngineError, NotReady, OutOfSlots, Overloaded
from bidtrie.scheduling.job import Job, JobStats

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Observer:
    """What the batcher tells whoever measures it; this one does not listen."""

    def step(self, seconds: float, nodes: int, jobs: int) -> None:
        """One engine step: how long it took, how many nodes it computed, and for how many jobs."""

    def started(self, queue_seconds: float) -> None:
        """A job's first step is about to run; it waited this long."""

    def queue(self, jobs: int) -> None:
        """Jobs waiting or running, after it changed."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A finished job's result and where its time went."""

    result: T
    stats: JobStats


@dataclass(slots=True, eq=False)
class _Entry:
    job: Job[Any]
    deadline: float | None
    arrived: float
    future: "Future[Outcome[Any]]" = field(default_factory=Future)
    stats: JobStats = field(default_factory=JobStats)
    wanted: TreeBatch | None = None
    started: bool = False


class Batcher:
    """Runs jobs on an engine, on one thread of its own, which is the only one that touches the engine."""

    def __init__(self, engine: Engine, *, max_jobs: int, observer: Observer | None = None) -> None:
        self.engine = engine
        self._max_jobs = max_jobs
        self._observer = observer or Observer()
        self._wake = threading.Condition()
        self._arrived: list[_Entry] = []
        self._running: list[_Entry] = []
        self._in_flight = 0
        self._stopping = False
        self._free_slots = engine.free_slots()
        self._step_seconds = 0.0
        self._thread = threading.Thread(target=self._loop, name="bidtrie-engine", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Jobs waiting or running."""
        return self._in_flight

    @property
    def free_slots(self) -> int:
        """KV slots that were free after the last step; only the engine's thread may ask the engine itself."""
        return self._free_slots

    @property
    def step_seconds(self) -> float:
        """About how long a step takes now: the slowest of late, older ones counting less."""
        return self._step_seconds

    def submit(self, job: Callable[[], Job[T]], deadline: float | None = None) -> "Future[Outcome[T]]":
        """Queue a job; `deadline` is on time.monotonic(). `job` is called here, its code runs on the engine's thread.

        The future fails with DeadlineExceeded when the deadline passes first; cancelling it ends the job at the next
        step. Raises Overloaded when `max_jobs` are in flight and NotReady after `shutdown`.
        """
        with self._wake:
            if self._stopping:
                raise NotReady("the engine is shutting down")
            if self._in_flight >= self._max_jobs:
                raise Overloaded(f"{self._in_flight} requests are in flight already", retry_after_s=0.1)
            entry = _Entry(job(), deadline, time.monotonic())
            self._in_flight += 1
            self._observer.queue(self._in_flight)
            self._arrived.append(entry)
            self._wake.notify()
        return entry.future

    def shutdown(self) -> None:
        """End every job with NotReady, stop the thread, then the engine."""
        with self._wake:
            if self._stopping:
                return
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self.engine.shutdown()

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._arrived or self._running or self._stopping):
                    self._wake.wait()
                arrived, self._arrived = self._arrived, []
                stopping = self._stopping
            self._running += arrived
            if stopping:
                for entry in list(self._running):
                    self._end(entry, error=NotReady("the engine is shutting down"))
                return
            for entry in arrived:
                if not self._leave(entry):
                    self._resume(entry, None)
            for entry in list(self._running):
                self._leave(entry)
            if self._running:
                self._step(self._select())

    def _leave(self, entry: _Entry) -> bool:
        """End a job whose request was cancelled or is too late."""
        if entry.future.cancelled():
            self._end(entry)
        elif entry.deadline is not None and time.monotonic() >= entry.deadline:
            self._end(entry, error=DeadlineExceeded("the deadline passed before the answer was ready"))
        else:
            return False
        return True

    def _select(self) -> list[_Entry]:
        room = self.engine.spec.max_nodes
        chosen = []
        for entry in self._running:
            assert entry.wanted is not None
            if len(entry.wanted) <= room:
                chosen.append(entry)
                room -= len(entry.wanted)
        return chosen

    def _step(self, entries: Sequence[_Entry]) -> None:
        """Run one step for some jobs. If it fails, each job is tried alone, so that only the culprit suffers."""
        if not entries:  # the oldest wants more than an engine step holds: its own mistake
            entry = self._running[0]
            self._end(
                entry, error=EngineError(f"a job asked for {len(entry.wanted or ())} nodes in one step")
            )
            return
        joined = Joined.of([entry.wanted for entry in entries if entry.wanted is not None])
        begin = time.monotonic()
        for entry in entries:
            if not entry.started:
                entry.started = True
                entry.stats.queue_s = begin - entry.arrived
                self._observer.started(entry.stats.queue_s)
        try:
            output = self.engine.step(joined.batch)
        except OutOfSlots:
            if len(entries) > 1:
                self._step(entries[: len(entries) // 2])
            else:
                # The last to have started makes room. That may be this very job, when it alone is too large.
                newest = [entry for entry in self._running if entry.started][-1]
                self._end(newest, error=Overloaded("the KV cache is full", retry_after_s=0.1))
            return
        except Exception as error:
            if len(entries) > 1:
                for entry in entries:
                    self._step([entry])
            else:
                logger.exception("an engine step failed")
                self._end(entries[0], error=error)
            return
        seconds = time.monotonic() - begin
        self._step_seconds = max(seconds, 0.8 * self._step_seconds)
        self._observer.step(seconds, len(joined.batch), len(entries))
        for entry, part in zip(entries, joined.split(output), strict=True):
            entry.stats.engine_s += seconds
            entry.stats.steps += 1
            entry.stats.nodes += len(part.nodes)
            self._resume(entry, part)

    def _resume(self, entry: _Entry, output: StepOutput | None) -> None:
        try:
            entry.wanted = next(entry.job) if output is None else entry.job.send(output)
            self._free_slots = self.engine.free_slots()
        except StopIteration as stop:
            self._end(entry, result=stop.value)
        except Exception as error:
            self._end(entry, error=error)

    def _end(self, entry: _Entry, result: Any = None, error: BaseException | None = None) -> None:
        entry.job.close()
        self._free_slots = self.engine.free_slots()
        self._running.remove(entry)
        with self._wake:
            self._in_flight -= 1
            self._observer.queue(self._in_flight)
        # A request that is cancelled at this very moment has nobody left to tell.
        if entry.future.set_running_or_notify_cancel():
            if error is not None:
                entry.future.set_exception(error)
            else:
                entry.future.set_result(Outcome(result, entry.stats))
