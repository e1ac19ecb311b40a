"""The batcher: sharing steps, fairness, leaving early, and faults that hit only their own job."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.errors import DeadlineExceeded, EngineError, NotReady, OutOfSlots, Overloaded
from bidtrie.scheduling.batcher import Batcher, Observer
from bidtrie.scheduling.job import Job


class CountingEngine(Engine):
    """Logits of a node are its token; remembers its batches; can be held, or made to fail on a token."""

    def __init__(self, max_nodes: int = 8, slots: int = 1000) -> None:
        self.spec = EngineSpec("counting", "0" * 16, 1000, 1000, max_nodes, slots, "none")
        self.batches: list[list[int]] = []
        self.open_sequences: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.threads: set[int] = set()
        self.kept = 0

    def open(self, share: int | None = None, length: int | None = None) -> int:
        sequence = max(self.open_sequences, default=-1) + 1
        self.open_sequences.add(sequence)
        return sequence

    def close(self, sequence: int) -> None:
        self.open_sequences.remove(sequence)

    def length(self, sequence: int) -> int:
        return 0

    def step(self, batch: TreeBatch) -> StepOutput:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(10)
        assert len(batch) <= self.spec.max_nodes
        if 666 in batch.tokens:
            raise ValueError("the engine broke")
        if len(batch) + self.kept > self.spec.slots:
            raise OutOfSlots("full")
        self.batches.append(batch.tokens.tolist())
        rows = len(batch.logits_for)
        return StepOutput(
            np.arange(len(batch), dtype=np.int32),
            np.arange(rows + 1, dtype=np.int64),
            batch.tokens[batch.logits_for].astype(np.float32),
            np.full(rows, np.nan, np.float32),
        )

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        self.kept += len(nodes)

    def keep(self, nodes: Sequence[int]) -> None: ...

    def release(self, nodes: Sequence[int]) -> None: ...

    def free_slots(self) -> int:
        return self.spec.slots


def chain(engine: Engine, tokens: Sequence[int], steps: int = 1) -> Job[list[float]]:
    """Feeds the same chain a number of times; its result is what came back."""
    sequence = engine.open()
    try:
        seen = []
        for _ in range(steps):
            output = yield TreeBatch.chain(tokens, sequence, last_logits=True)
            seen.append(float(output.row(0)[0]))
        return seen
    finally:
        engine.close(sequence)


@pytest.fixture
def engine():
    return CountingEngine()


@pytest.fixture
def batcher(engine):
    batcher = Batcher(engine, max_jobs=16)
    yield batcher
    engine.gate.set()
    batcher.shutdown()


def hold(engine, batcher):
    """A first job inside a step that does not end, so that what follows waits together."""
    engine.gate.clear()
    future = batcher.submit(lambda: chain(engine, [1]))
    assert engine.entered.wait(10)
    return future


def test_jobs_that_wait_share_a_step_and_get_their_own_rows(engine, batcher):
    first = hold(engine, batcher)
    futures = [batcher.submit(lambda t=t: chain(engine, [t, t + 100], steps=2)) for t in (10, 20, 30)]
    engine.gate.set()
    assert first.result(10).result == [1.0]
    assert [future.result(10).result for future in futures] == [[110.0] * 2, [120.0] * 2, [130.0] * 2]
    assert engine.batches == [[1], [10, 110, 20, 120, 30, 130], [10, 110, 20, 120, 30, 130]]
    assert futures[0].result().stats.steps == 2
    assert futures[0].result().stats.nodes == 4
    assert futures[0].result().stats.queue_s > 0
    assert not engine.open_sequences


def test_a_step_takes_the_oldest_first_and_no_more_than_fits(engine, batcher):
    first = hold(engine, batcher)
    sizes = [5, 5, 3, 8]
    futures = [batcher.submit(lambda t=t, n=n: chain(engine, [t] * n)) for t, n in enumerate(sizes, start=10)]
    engine.gate.set()
    assert [future.result(10).result for future in (first, *futures)] == [
        [1.0],
        [10.0],
        [11.0],
        [12.0],
        [13.0],
    ]
    # 5 + 3 fill the first step; the second 5 leaves no room for the 8, which goes alone.
    assert [len(batch) for batch in engine.batches] == [1, 8, 5, 8]


def test_the_engine_is_touched_by_one_thread_only(engine, batcher):
    for future in [batcher.submit(lambda: chain(engine, [1], steps=3)) for _ in range(5)]:
        future.result(10)
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_a_passed_deadline_ends_the_job_before_the_next_step(engine, batcher):
    first = hold(engine, batcher)
    late = batcher.submit(lambda: chain(engine, [2]), deadline=time.monotonic() + 0.01)
    time.sleep(0.02)
    engine.gate.set()
    first.result(10)
    with pytest.raises(DeadlineExceeded):
        late.result(10)
    assert engine.batches == [[1]]
    assert not engine.open_sequences
    assert batcher.in_flight == 0


def test_a_deadline_passed_during_a_step_wins_over_further_steps(engine, batcher):
    engine.gate.clear()
    late = batcher.submit(lambda: chain(engine, [2], steps=3), deadline=time.monotonic() + 0.05)
    assert engine.entered.wait(10)
    time.sleep(0.06)
    engine.gate.set()
    with pytest.raises(DeadlineExceeded):
        late.result(10)
    assert engine.batches == [[2]]


def test_a_cancelled_job_frees_its_place_at_the_next_step(engine, batcher):
    first = hold(engine, batcher)
    cancelled = batcher.submit(lambda: chain(engine, [2], steps=100))
    assert cancelled.cancel()
    engine.gate.set()
    first.result(10)
    assert batcher.submit(lambda: chain(engine, [3])).result(10).result == [3.0]
    with pytest.raises(CancelledError):
        cancelled.result()
    assert [2] not in engine.batches
    assert batcher.in_flight == 0


def test_a_failing_step_fails_only_the_job_that_caused_it(engine, batcher):
    first = hold(engine, batcher)
    futures = [batcher.submit(lambda t=t: chain(engine, [t])) for t in (10, 666, 20)]
    engine.gate.set()
    first.result(10)
    assert futures[0].result(10).result == [10.0]
    assert futures[2].result(10).result == [20.0]
    with pytest.raises(ValueError, match="the engine broke"):
        futures[1].result(10)
    assert not engine.open_sequences


def test_a_job_that_raises_or_wants_too_much_fails_alone(engine, batcher):
    def wrong() -> Job[None]:
        yield TreeBatch.chain([1], 0)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        batcher.submit(wrong).result(10)
    with pytest.raises(EngineError, match="9 nodes"):
        batcher.submit(lambda: chain(engine, [1] * 9)).result(10)
    assert batcher.submit(lambda: chain(engine, [3])).result(10).result == [3.0]


def test_a_job_without_work_for_the_engine_is_answered_at_once(engine, batcher):
    def instant() -> Job[int]:
        return 7
        yield

    assert batcher.submit(instant).result(10).result == 7
    assert engine.batches == []


def test_a_full_cache_sheds_the_youngest_and_the_oldest_goes_on():
    engine = CountingEngine(max_nodes=8, slots=6)

    def greedy(token: int) -> Job[int]:
        for _ in range(4):
            output = yield TreeBatch.chain([token], 0)
            engine.commit(0, output.nodes.tolist())
        return token

    batcher = Batcher(engine, max_jobs=16)
    first = hold(engine, batcher)
    futures = [batcher.submit(lambda t=t: greedy(t)) for t in (10, 20)]
    engine.gate.set()
    first.result(10)
    # Together they want 8 of 6 slots: the younger goes. (This engine never gives slots back, so one is left.)
    with pytest.raises(Overloaded, match="KV cache"):
        futures[1].result(10)
    batcher.shutdown()


def test_more_jobs_than_allowed_are_refused(engine):
    batcher = Batcher(engine, max_jobs=2)
    futures = [hold(engine, batcher), batcher.submit(lambda: chain(engine, [2]))]
    with pytest.raises(Overloaded) as refused:
        batcher.submit(lambda: chain(engine, [3]))
    assert refused.value.retry_after_s > 0
    engine.gate.set()
    for future in futures:
        future.result(10)
    assert batcher.submit(lambda: chain(engine, [4])).result(10).result == [4.0]
    batcher.shutdown()


def test_shutdown_answers_everyone_and_refuses_newcomers(engine):
    batcher = Batcher(engine, max_jobs=16)
    running = hold(engine, batcher)
    waiting = batcher.submit(lambda: chain(engine, [2], steps=1000))
    threading.Timer(0.05, engine.gate.set).start()
    batcher.shutdown()
    running.result(10)
    with pytest.raises(NotReady):
        waiting.result(10)
    with pytest.raises(NotReady):
        batcher.submit(lambda: chain(engine, [3]))
    assert not engine.open_sequences


def test_the_observer_hears_of_steps_and_queue(engine):
    heard: list[tuple[str, float]] = []

    class Listener(Observer):
        def step(self, seconds: float, nodes: int, jobs: int) -> None:
            heard.append(("step", nodes))

        def started(self, queue_seconds: float) -> None:
            heard.append(("started", 0))

        def queue(self, jobs: int) -> None:
            heard.append(("queue", jobs))

    batcher = Batcher(engine, max_jobs=16, observer=Listener())
    batcher.submit(lambda: chain(engine, [1, 2], steps=2)).result(10)
    batcher.shutdown()
    assert heard == [("queue", 1), ("started", 0), ("step", 2), ("step", 2), ("queue", 0)]
