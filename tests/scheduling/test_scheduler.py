"""The scheduler on its thread: sharing steps, fairness, leaving early, and faults that hit only their own job."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.errors import DeadlineExceeded, EngineError, NotReady, OutOfSlots, Overloaded
from bidtrie.scheduling.engine_thread import EngineThread
from bidtrie.scheduling.job import Job, OutOfTime, Plan
from bidtrie.scheduling.observer import Observer
from bidtrie.scheduling.scheduler import Level, Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape


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


class Engines:
    """A scheduler on its thread; jobs come without expectations."""

    def __init__(self, engine: Engine, *, max_jobs: int = 16, observer: Observer | None = None) -> None:
        level = Level(engine)
        level.model.speed = 1e-3  # steps of this engine take no time
        self.scheduler = Scheduler([level], max_requests=max_jobs, observer=observer)
        self.thread = EngineThread(self.scheduler)
        self.shutdown = self.thread.shutdown

    def submit(self, job, deadline=None, nodes=1, least=None):
        plan = Plan("full", 0, (StepShape(nodes, 0, 1, 0, 1),), job, least=least)
        return self.scheduler.submit([plan], deadline)

    @property
    def in_flight(self) -> int:
        return self.scheduler.in_flight


@pytest.fixture
def engine():
    return CountingEngine()


@pytest.fixture
def engines(engine):
    engines = Engines(engine, max_jobs=16)
    yield engines
    engine.gate.set()
    engines.shutdown()


def hold(engine, engines):
    """A first job inside a step that does not end, so that what follows waits together."""
    engine.gate.clear()
    future = engines.submit(lambda: chain(engine, [1]))
    assert engine.entered.wait(10)
    return future


def test_jobs_that_wait_share_a_step_and_get_their_own_rows(engine, engines):
    first = hold(engine, engines)
    futures = [engines.submit(lambda t=t: chain(engine, [t, t + 100], steps=2)) for t in (10, 20, 30)]
    engine.gate.set()
    assert first.result(10).result == [1.0]
    assert [future.result(10).result for future in futures] == [[110.0] * 2, [120.0] * 2, [130.0] * 2]
    assert engine.batches == [[1], [10, 110, 20, 120, 30, 130], [10, 110, 20, 120, 30, 130]]
    assert futures[0].result().stats.steps == 2
    assert futures[0].result().stats.nodes == 4
    assert futures[0].result().stats.queue_s > 0
    assert not engine.open_sequences


def test_a_step_takes_the_oldest_first_and_no_more_than_fits(engine, engines):
    first = hold(engine, engines)
    sizes = [5, 5, 3, 8]
    futures = [engines.submit(lambda t=t, n=n: chain(engine, [t] * n)) for t, n in enumerate(sizes, start=10)]
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


def test_the_engine_is_touched_by_one_thread_only(engine, engines):
    for future in [engines.submit(lambda: chain(engine, [1], steps=3)) for _ in range(5)]:
        future.result(10)
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_a_passed_deadline_ends_the_job_before_the_next_step(engine, engines):
    first = hold(engine, engines)
    late = engines.submit(lambda: chain(engine, [2]), deadline=time.monotonic() + 0.05)
    time.sleep(0.06)
    engine.gate.set()
    first.result(10)
    with pytest.raises(DeadlineExceeded):
        late.result(10)
    assert engine.batches == [[1]]
    assert not engine.open_sequences
    assert engines.in_flight == 0


def test_a_deadline_passed_during_a_step_wins_over_further_steps(engine, engines):
    engine.gate.clear()
    late = engines.submit(lambda: chain(engine, [2], steps=3), deadline=time.monotonic() + 0.05)
    assert engine.entered.wait(10)
    time.sleep(0.06)
    engine.gate.set()
    with pytest.raises(DeadlineExceeded):
        late.result(10)
    assert engine.batches == [[2]]


def test_a_cancelled_job_frees_its_place_at_the_next_step(engine, engines):
    first = hold(engine, engines)
    cancelled = engines.submit(lambda: chain(engine, [2], steps=100))
    assert cancelled.cancel()
    engine.gate.set()
    first.result(10)
    assert engines.submit(lambda: chain(engine, [3])).result(10).result == [3.0]
    with pytest.raises(CancelledError):
        cancelled.result()
    assert [2] not in engine.batches
    assert engines.in_flight == 0


def test_a_failing_step_fails_only_the_job_that_caused_it(engine, engines):
    first = hold(engine, engines)
    futures = [engines.submit(lambda t=t: chain(engine, [t])) for t in (10, 666, 20)]
    engine.gate.set()
    first.result(10)
    assert futures[0].result(10).result == [10.0]
    assert futures[2].result(10).result == [20.0]
    with pytest.raises(ValueError, match="the engine broke"):
        futures[1].result(10)
    assert not engine.open_sequences


def test_a_job_that_raises_or_wants_too_much_fails_alone(engine, engines):
    def wrong() -> Job[None]:
        yield TreeBatch.chain([1], 0)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        engines.submit(wrong).result(10)
    with pytest.raises(EngineError, match="9 nodes"):
        engines.submit(lambda: chain(engine, [1] * 9)).result(10)
    assert engines.submit(lambda: chain(engine, [3])).result(10).result == [3.0]


def test_a_job_without_work_for_the_engine_is_answered_at_once(engine, engines):
    def instant() -> Job[int]:
        return 7
        yield

    assert engines.submit(instant).result(10).result == 7
    assert engine.batches == []


def test_a_full_cache_sheds_the_youngest_and_the_oldest_goes_on():
    engine = CountingEngine(max_nodes=8, slots=6)

    def greedy(token: int) -> Job[int]:
        for _ in range(4):
            output = yield TreeBatch.chain([token], 0)
            engine.commit(0, output.nodes.tolist())
        return token

    engines = Engines(engine, max_jobs=16)
    first = hold(engine, engines)
    futures = [engines.submit(lambda t=t: greedy(t)) for t in (10, 20)]
    engine.gate.set()
    first.result(10)
    # Together they want 8 of 6 slots: the younger goes. (This engine never gives slots back, so one is left.)
    with pytest.raises(Overloaded, match="KV cache"):
        futures[1].result(10)
    engines.shutdown()


def test_more_jobs_than_allowed_are_refused(engine):
    engines = Engines(engine, max_jobs=2)
    futures = [hold(engine, engines), engines.submit(lambda: chain(engine, [2]))]
    with pytest.raises(Overloaded) as refused:
        engines.submit(lambda: chain(engine, [3]))
    assert refused.value.retry_after_s > 0
    engine.gate.set()
    for future in futures:
        future.result(10)
    assert engines.submit(lambda: chain(engine, [4])).result(10).result == [4.0]
    engines.shutdown()


def test_shutdown_answers_everyone_and_refuses_newcomers(engine):
    engines = Engines(engine, max_jobs=16)
    running = hold(engine, engines)
    waiting = engines.submit(lambda: chain(engine, [2], steps=1000))
    threading.Timer(0.05, engine.gate.set).start()
    engines.shutdown()
    running.result(10)
    with pytest.raises(NotReady):
        waiting.result(10)
    with pytest.raises(NotReady):
        engines.submit(lambda: chain(engine, [3]))
    assert not engine.open_sequences


def test_the_observer_hears_of_steps_and_queue(engine):
    heard: list[tuple[object, ...]] = []

    class Listener(Observer):
        def arrived(self, service_class, slack):
            heard.append(("arrived", service_class))

        def planned(self, plan):
            heard.append(("planned", plan))

        def shed(self, service_class, reason):
            heard.append(("shed", reason))

        def step(self, level, seconds, nodes, jobs):
            heard.append(("step", level, dict(nodes), jobs))

        def predicted(self, level, ratio):
            assert ratio > 0

        def started(self, service_class, queue_seconds, slack):
            heard.append(("started", slack > 0))

        def queue(self, jobs):
            heard.append(("queue", jobs))

    engines = Engines(engine, observer=Listener())
    engines.submit(lambda: chain(engine, [1, 2], steps=2), time.monotonic() + 60).result(10)
    with pytest.raises(Overloaded):
        engines.submit(lambda: chain(engine, [1]), deadline=time.monotonic())
    engines.shutdown()
    step = ("step", 0, {ServiceClass.TARGETING: 2}, 1)
    begin = [("arrived", ServiceClass.TARGETING), ("planned", "full"), ("queue", 1), ("started", True)]
    assert heard == [*begin, step, ("queue", 0), step, begin[0], ("shed", "deadline")] or heard == [
        *begin, step, step, ("queue", 0), begin[0], ("shed", "deadline")
    ]  # fmt: skip


def test_a_request_without_a_chance_is_refused_at_once(engine, engines):
    with pytest.raises(Overloaded, match="too late") as refused:
        engines.submit(lambda: chain(engine, [1]), deadline=time.monotonic() - 1)
    assert refused.value.retry_after_s > 0
    assert engine.batches == []


def test_the_first_plan_that_fits_is_taken(engine):
    level = Level(engine)
    scheduler = Scheduler([level], max_requests=16)
    second = level.model.mean(StepShape(1, 0, 1, 0, 1))
    deadline = time.monotonic() + 4 * level.model.margin * second

    def plan(name: str, steps: int) -> Plan[list[float]]:
        return Plan(name, 0, (StepShape(1, 0, 1, 0, 1),) * steps, lambda: chain(engine, [1], steps))

    future = scheduler.submit(
        [plan("full", 100), plan("narrow", 50), plan("coarse", 1), plan("less", 1)], deadline
    )
    while scheduler.round() is not None:
        pass
    assert future.result(0).stats.plan == "coarse"
    with pytest.raises(Overloaded):
        scheduler.submit([plan("full", 100)], time.monotonic() + second)


def test_a_job_out_of_time_answers_with_what_it_has(engine):
    now = [0.0]
    scheduler = Scheduler([Level(engine)], max_requests=16, clock=lambda: now[0])

    def counting() -> Job[int]:
        steps = 0
        try:
            while True:
                yield TreeBatch.chain([1], 0)
                steps += 1
                now[0] += 0.01
        except OutOfTime:
            return steps

    shape = StepShape(1, 0, 0, 0, 1)
    future = scheduler.submit([Plan("full", 0, (shape,) * 3, counting, least=1)], 0.055)
    while scheduler.round() is not None:
        pass
    assert 1 <= future.result(0).result <= 5
    assert now[0] <= 0.055


def test_a_job_that_goes_on_although_it_is_out_of_time_is_ended(engine):
    now = [0.0]
    scheduler = Scheduler([Level(engine)], max_requests=16, clock=lambda: now[0])

    def stubborn() -> Job[int]:
        while True:
            try:
                yield TreeBatch.chain([1], 0)
                now[0] += 1
            except OutOfTime:
                pass

    future = scheduler.submit([Plan("full", 0, (StepShape(1),), stubborn, least=1)], 1.0)
    while scheduler.round() is not None:
        pass
    with pytest.raises(EngineError, match="out of time"):
        future.result(0)


def test_requests_of_two_levels_take_turns_on_their_own_engines():
    best, cheap = CountingEngine(), CountingEngine()
    scheduler = Scheduler([Level(best), Level(cheap)], max_requests=16)
    shape = StepShape(1, 0, 1, 0, 1)
    futures = [
        scheduler.submit([Plan(name, i, (shape,), lambda e=engine, t=token: chain(e, [t], 2))])
        for name, i, engine, token in (("full", 0, best, 1), ("full@1", 1, cheap, 2), ("full", 0, best, 3))
    ]
    while scheduler.round() is not None:
        pass
    assert [f.result(0).result for f in futures] == [[1.0] * 2, [2.0] * 2, [3.0] * 2]
    assert best.batches == [[1, 3], [1, 3]]
    assert cheap.batches == [[2], [2]]
    assert futures[1].result(0).stats.level == 1


def test_a_defect_of_the_scheduler_answers_everyone_and_the_next(engine, engines, monkeypatch):
    broken = engines.scheduler._members
    monkeypatch.setattr(engines.scheduler, "_members", lambda now: 1 // 0)
    with pytest.raises(EngineError, match="scheduler failed"):
        engines.submit(lambda: chain(engine, [1])).result(10)
    monkeypatch.setattr(engines.scheduler, "_members", broken)
    assert engines.submit(lambda: chain(engine, [3])).result(10).result == [3.0]
    assert engines.in_flight == 0


def test_a_wall_clock_that_jumps_changes_nothing(engine, engines, monkeypatch):
    def never() -> float:
        raise AssertionError("somebody asked the wall clock")

    monkeypatch.setattr(time, "time", never)
    assert engines.submit(lambda: chain(engine, [3]), time.monotonic() + 10).result(10).result == [3.0]


def test_pieces_of_a_prefill_fit_the_step_limit():
    engine = CountingEngine(max_nodes=512)
    scheduler = Scheduler([Level(engine)], max_requests=1, max_step_s=0.01)
    model = scheduler.levels[0].model
    assert model.mean(StepShape(scheduler.chunk(), 0, 0, 0, 1)) <= 0.01
    assert 16 <= scheduler.chunk() < 512
    scheduler.max_step_s = 1e-6
    assert scheduler.chunk() == 16
    scheduler.max_step_s = 10
    assert scheduler.chunk() == 512


def test_the_more_work_waits_the_later_a_refused_request_shall_come_back(engine):
    scheduler = Scheduler([Level(engine)], max_requests=100, clock=lambda: 1.0)
    plan = Plan("full", 0, (StepShape(8, 0, 1, 0, 1),) * 5, lambda: chain(engine, [1], 5))
    said = []
    for _ in range(3):
        for _ in range(10):
            scheduler.submit([plan])
        with pytest.raises(Overloaded) as refused:
            scheduler.submit([plan], 0.5)
        said.append(refused.value.retry_after_s)
    work = 10 * 5 * scheduler.levels[0].model.marginal(plan.outline[0])
    assert said == pytest.approx([work / 2, work, 1.5 * work])
    scheduler.stop()
