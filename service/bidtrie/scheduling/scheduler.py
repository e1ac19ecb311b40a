"""Decides which requests are answered, how, and which of them share each engine step.

A request comes with plans, best first, and is admitted with the first that is predicted to end in time without making
a promised answer late; if there is none it is refused at once. Steps take requests in order of deadline (`selection`),
from one engine each: requests of other engines have to wait for the next. A request leaves as soon as it is cancelled,
or when its next step would end after its deadline; it then answers with what it has found.

`submit` may be called on any thread; `round` and `stop` on one, which is the only one that touches the engines.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Joined, StepOutput
from bidtrie.errors import BidtrieError, DeadlineExceeded, EngineError, NotReady, OutOfSlots, Overloaded
from bidtrie.scheduling.admission import Backlog, Demand, hopeless
from bidtrie.scheduling.cost_model import CostModel
from bidtrie.scheduling.entry import Entry, Outcome, plan_demand
from bidtrie.scheduling.job import OutOfTime, Plan
from bidtrie.scheduling.observer import Observer
from bidtrie.scheduling.selection import company_wait, in_order, select
from bidtrie.scheduling.service_class import RANK, WEIGHTS, ServiceClass, Shares
from bidtrie.scheduling.step_shape import StepShape, shape_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NEVER = math.inf
#: How fast the use of the engine and the rate of arrivals are forgotten, in seconds and as a share.
_USE_SECONDS, _ARRIVAL_RATE = 1.0, 0.1
_LEAST_RETRY_S = 0.005
#: An engine that has not stepped for so many seconds is idle, and tries what it predicts to be late: in the request's
#: own time where there is so much of it, else afterwards and for nobody, to see what it takes now.
_PROBE_S, _PATIENT_S = 0.05, 1.0
#: Fewest nodes of a prefill's piece: smaller ones cost more steps than they save.
_LEAST_CHUNK = 16
#: Times the cost of a step with one node: what is little more than that.
_LITTLE_MORE = 1.5


@dataclass(slots=True)
class Level:
    """A model on its engine, with what its steps cost."""

    engine: Engine
    model: CostModel = field(default_factory=CostModel)


class Scheduler:
    """The state of one or more engines' queue."""

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        max_requests: int,
        max_step_s: float = 0.01,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.levels = tuple(levels)
        self.clock = clock
        self.max_step_s = max_step_s
        #: Called after `submit` took a request in; by default nobody waits for it.
        self.wake: Callable[[], None] = lambda: None
        self.max_requests = max_requests
        self.observer = observer or Observer()
        self._lock = threading.Lock()
        self._arrived: list[Entry] = []
        self._running: list[Entry] = []
        self._stopped = False
        self._shares = Shares()
        self._busy_until = -_NEVER
        self._stepped_at = -_NEVER
        self._round_began = clock()
        self._free_slots = [level.engine.free_slots() for level in self.levels]
        self._used = dict.fromkeys(ServiceClass, 0.0)
        self._used_at = clock()
        self._last_arrival, self._gap = -_NEVER, _NEVER
        self._next_shape = StepShape(1, 0, 0, 0, 1)

    @property
    def in_flight(self) -> int:
        """Requests waiting or running."""
        return len(self._arrived) + len(self._running)

    def free_slots(self, level: int = 0) -> int:
        """KV slots of an engine that were free after the last step."""
        return self._free_slots[level]

    def chunk(self, level: int = 0) -> int:
        """Most nodes that one job should put into a step, so that others find room in it."""
        model, most = self.levels[level].model, self.levels[level].engine.spec.max_nodes
        nodes = most
        while nodes > _LEAST_CHUNK and model.mean(StepShape(nodes, 0, 0, 0, 1)) > self.max_step_s:
            nodes = max(_LEAST_CHUNK, nodes // 2)
        return min(nodes, most)

    def ahead(self, level: int = 0) -> int:
        """Most nodes that a step takes at little more than the cost of one: room for work that may not be needed."""
        model, most = self.levels[level].model, self.levels[level].engine.spec.max_nodes
        most_s = _LITTLE_MORE * model.mean(StepShape(1, 0, 0, 0, 1))
        nodes = 1
        while nodes < most and model.mean(StepShape(nodes + 1, 0, 0, 0, 1)) <= most_s:
            nodes += 1 if nodes < 16 else nodes // 4
        return min(nodes, most)

    def submit(
        self,
        plans: Sequence[Plan[T]],
        deadline: float | None = None,
        service_class: ServiceClass = ServiceClass.TARGETING,
    ) -> "Future[Outcome[T]]":
        """Admit a request by the first of its plans that fits; `deadline` is on the scheduler's clock.

        The future fails with DeadlineExceeded when time runs out and there is nothing to show; cancelling it ends the
        job at the next step. Raises Overloaded when the queue is full or no plan fits, and NotReady after `stop`.
        """
        now = self.clock()
        end = _NEVER if deadline is None else deadline
        self.observer.arrived(service_class, end - now)
        with self._lock:
            self._refuse_if_stopped()
            self._note_arrival(now, service_class, plans[0])
            if self.in_flight >= self.max_requests:
                raise self._refused(
                    service_class, "queue_full", f"{self.in_flight} requests are in flight already"
                )
            plan = self._admit(plans, end, service_class, now)
            refused = None
            if plan is None:
                message = "the answer is predicted to come too late"
                refused = self._refused(service_class, "deadline", message)
        if plan is None:
            self._probe(plans[-1], now)
            assert refused is not None
            raise refused
        # Away from the lock: making a job may take a while.
        entry = Entry(service_class, end, now, cheapest=plans[-1] if plan is not plans[-1] else None)
        entry.take(plan, self.levels[plan.level].model)
        with self._lock:
            self._refuse_if_stopped()
            self._arrived.append(entry)
        self.observer.planned(plan.name)
        self.observer.queue(self.in_flight)
        self.wake()
        return entry.future

    def round(self) -> float | None:
        """Run one step, if any request wants one.

        Returns the seconds to wait before the next round (0: none), unless `submit` comes first; None: until it does.
        """
        self._round_began = self.clock()
        with self._lock:
            arrived, self._arrived = self._arrived, []
            self._running += arrived
        for entry in [*self._running]:
            if entry.shrinks and not entry.started:
                begun = entry.wanted is not None
                self._shrink(entry)
                if begun:
                    self._resume(entry, None)
        for entry in arrived:
            if not self._leave(entry, self.clock()):
                self._resume(entry, None)
        now = self.clock()
        for entry in list(self._running):
            self._leave(entry, now)
        if not self._running:
            self._shares.charge(set(), {})
            return None
        members = self._members(now)
        wait = self._wait(members, now)
        if wait > 0:
            return wait
        self._step(members)
        return 0.0

    def stop(self) -> None:
        """End every request with NotReady, and refuse those that come."""
        self._stopped = True
        self.abandon(NotReady("the engine is shutting down"))

    def abandon(self, error: Exception) -> None:
        """End every request with an error."""
        with self._lock:
            self._running += self._arrived
            self._arrived = []
        for entry in list(self._running):
            self._end(entry, error=error)

    # Admission, on the caller's thread.

    def _admit(
        self, plans: Sequence[Plan[T]], deadline: float, service_class: ServiceClass, now: float
    ) -> Plan[T] | None:
        if deadline == _NEVER:
            return plans[0]
        competitors = self._competitors(service_class)
        present = [self._demand(entry) for entry in competitors]
        margin = 1.0 / self._share(service_class, now)

        def backlog(among: Sequence[Demand], level: Level) -> Backlog:
            return Backlog(
                among,
                start=self._free_from(now),
                step_fixed=level.model.fixed(),
                step_room=self._step_room(level),
                margin=level.model.margin * margin,
            )

        def demand(plan: Plan[T]) -> Demand:
            return plan_demand(plan, deadline, self.levels[plan.level].model)

        # The last is the cheapest: under overload that is the first question.
        cheapest = plans[-1]
        level, least = self.levels[cheapest.level], demand(cheapest)
        before = {cheapest.level: backlog(present, level)}
        if before[cheapest.level].fits(least):
            for plan in plans[:-1]:
                if plan.level not in before:
                    before[plan.level] = backlog(present, self.levels[plan.level])
                if before[plan.level].fits(demand(plan)):
                    return plan
            return cheapest
        if self._make_others_shrink(
            competitors, present, service_class, lambda among: backlog(among, level).fits(least)
        ):
            return cheapest
        if not present and self._may_try(deadline, now):
            return cheapest
        return None

    def _may_try(self, deadline: float, now: float) -> bool:
        """Whether to try on an idle engine what is predicted to be late: predictions may be wrong."""
        return now - self._stepped_at > _PROBE_S and deadline - now >= _PATIENT_S

    def _probe(self, plan: Plan[Any], now: float) -> None:
        """Run a plan without a deadline on an idle engine: predictions that refuse everybody would never be corrected.

        Its request has been answered otherwise by then, as what may be late is not to be waited for.
        """
        if self.in_flight or now - self._stepped_at <= _PROBE_S:
            return
        entry = Entry(ServiceClass.FILL, _NEVER, now)
        entry.take(plan, self.levels[plan.level].model)
        with self._lock:
            if self._stopped:
                entry.job.close()
                return
            self._arrived.append(entry)
        self.wake()

    def _make_others_shrink(
        self,
        competitors: Sequence[Entry],
        present: Sequence[Demand],
        service_class: ServiceClass,
        fits: Callable[[list[Demand]], bool],
    ) -> bool:
        """Whether the request fits when others that have not begun take their cheapest plan; then they shall.

        Those go first that save most, and no more of them than needed.
        """
        savings = []
        for i, entry in enumerate(competitors):
            if (
                entry.cheapest is None
                or entry.shrinks
                or entry.started
                or entry.service_class is not service_class
            ):
                continue
            small = entry.cheapest_demand(self.levels[entry.cheapest.level].model)
            savings.append((present[i].work - small.work, i, small))
        savings.sort(key=lambda saving: -saving[0])
        among = list(present)
        for _, i, small in savings:
            among[i] = small
        if not savings or not fits(among):
            return False
        among = list(present)
        for _, i, small in savings:
            among[i] = small
            competitors[i].shrinks = True
            if fits(among):
                break
        return True

    def _free_from(self, now: float) -> float:
        """When the step that is running is expected to end."""
        return max(now, min(self._busy_until, now + self.max_step_s))

    def _competitors(self, service_class: ServiceClass) -> list[Entry]:
        """Whoever goes before a request of this class or with it."""
        rank = RANK[service_class]
        return [e for e in (*self._running, *self._arrived) if RANK[e.service_class] <= rank]

    def _demand(self, entry: Entry) -> Demand:
        return entry.demand(self.levels[entry.plan.level].model)

    def _step_room(self, level: Level) -> float:
        fixed = level.model.fixed()
        return max(self.max_step_s - fixed, fixed, 1e-6)

    def _share(self, service_class: ServiceClass, now: float) -> float:
        """The share of the engine that a class may count on: what more urgent ones leave, at least its weight."""
        classes = {e.service_class for e in (*self._running, *self._arrived)} | {service_class}
        weight = WEIGHTS[service_class] / max(sum(WEIGHTS[each] for each in classes), 1e-9)
        decay = math.exp(-max(0.0, now - self._used_at) / _USE_SECONDS)
        urgent = sum(self._used[each] for each in ServiceClass if RANK[each] < RANK[service_class])
        return max(weight, 1.0 - decay * urgent) if RANK[service_class] else weight

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise NotReady("the engine is shutting down")

    def _refused(self, service_class: ServiceClass, reason: str, message: str) -> Overloaded:
        self.observer.shed(service_class, reason)
        # By then about half of the work that is waiting will be done.
        work = sum(self._demand(entry).work for entry in self._competitors(service_class))
        return Overloaded(message, retry_after_s=max(work / 2, _LEAST_RETRY_S))

    def _note_arrival(self, now: float, service_class: ServiceClass, plan: Plan[Any]) -> None:
        if service_class is not ServiceClass.TARGETING:
            return
        gap = now - self._last_arrival
        self._gap = gap if math.isinf(self._gap) else self._gap + _ARRIVAL_RATE * (gap - self._gap)
        self._last_arrival = now
        self._next_shape = plan.outline[0]

    # Rounds, on the engines' thread.

    def _shrink(self, entry: Entry) -> None:
        """Begin anew with the cheapest plan."""
        plan = entry.cheapest
        assert plan is not None
        entry.job.close()
        entry.cheapest, entry.shrinks = None, False
        entry.take(plan, self.levels[plan.level].model)
        self.observer.shrunk(plan.name)

    def _leave(self, entry: Entry, now: float) -> bool:
        """End a job whose request was cancelled or has no time for another step."""
        model = self.levels[entry.plan.level].model
        if entry.future.cancelled():
            self._end(entry)
        elif now >= entry.deadline:
            self._out_of_time(entry)
        elif not (
            len(self._running) == 1 and not entry.started and self._may_try(entry.deadline, now)
        ) and self._too_late(entry, model, now):
            self._out_of_time(entry)
            self._probe(entry.plan, now)
        else:
            return False
        return True

    def _too_late(self, entry: Entry, model: CostModel, now: float) -> bool:
        if now + model.safe(entry.shape) > entry.deadline:
            return True
        # Work that cannot lead to an answer takes time from others.
        least = entry.plan.least
        if least is None:
            return now + model.mean(entry.shape) + entry.later() > entry.deadline
        if entry.step >= least:
            return False
        until = entry.later() - (entry.later_s[least - 1] if least <= len(entry.later_s) else 0.0)
        return now + model.mean(entry.shape) + max(0.0, until) > entry.deadline

    def _members(self, now: float) -> list[Entry]:
        ordered = in_order(self._running, self._shares)
        index = ordered[0].plan.level
        level = self.levels[index]
        ordered = self._given_up_last([entry for entry in ordered if entry.plan.level == index], level, now)
        return select(
            ordered,
            level.model,
            now,
            max_seconds=self.max_step_s,
            max_nodes=level.engine.spec.max_nodes,
        )

    def _given_up_last(self, ordered: list[Entry], level: Level, now: float) -> list[Entry]:
        """Targeting requests that make the most of the others late go after those; other classes keep their place."""
        places = [i for i, entry in enumerate(ordered) if entry.service_class is ServiceClass.TARGETING]
        late = hopeless(
            [self._demand(ordered[i]) for i in places],
            start=now,
            step_fixed=level.model.fixed(),
            step_room=self._step_room(level),
            margin=1.0,
        )
        if late:
            kept = [place for k, place in enumerate(places) if k not in late]
            moved = [ordered[i] for i in (*kept, *(places[k] for k in sorted(late)))]
            for place, entry in zip(places, moved, strict=True):
                ordered[place] = entry
        return ordered

    def _wait(self, members: Sequence[Entry], now: float) -> float:
        if self.in_flight > len(members):
            return 0.0
        return company_wait(
            members,
            self.levels[members[0].plan.level].model,
            now,
            gap=self._gap,
            since_arrival=now - self._last_arrival,
            next_shape=self._next_shape,
        )

    def _step(self, entries: Sequence[Entry]) -> None:
        """Run one step for some jobs. If it fails, each job is tried alone, so that only the culprit suffers."""
        index = entries[0].plan.level
        level = self.levels[index]
        joined = Joined.of([entry.wanted for entry in entries if entry.wanted is not None])
        if len(joined.batch) > level.engine.spec.max_nodes:  # a single job's, or it would not have joined
            self._end(entries[0], error=EngineError(f"a job asked for {len(joined.batch)} nodes in one step"))
            return
        shape = StepShape()
        for entry in entries:
            shape = shape.plus(entry.shape)
        begin = self.clock()
        self._busy_until = begin + level.model.mean(shape)
        for entry in entries:
            entry.in_step = True
            if not entry.started:
                entry.started = True
                entry.stats.queue_s = begin - entry.arrived
                slack = entry.latest_end() - self._busy_until
                self.observer.started(entry.service_class, entry.stats.queue_s, slack)
        try:
            try:
                output = level.engine.step(joined.batch)
            finally:
                for entry in entries:
                    entry.in_step = False
        except OutOfSlots:
            if len(entries) > 1:
                self._step(entries[: len(entries) // 2])
            else:
                self._make_room(index)
            return
        except Exception as error:
            if len(entries) > 1:
                for entry in entries:
                    if not self._leave(entry, self.clock()):
                        self._step([entry])
            else:
                logger.exception("an engine step failed")
                self._end(entries[0], error=error)
            return
        seconds = self.clock() - begin
        nodes: dict[ServiceClass, int] = {}
        work = {entry: level.model.marginal(entry.shape) for entry in entries}
        for entry, part in zip(entries, joined.split(output), strict=True):
            nodes[entry.service_class] = nodes.get(entry.service_class, 0) + entry.shape.nodes
            entry.stats.engine_s += seconds
            entry.stats.steps += 1
            entry.stats.nodes += len(part.nodes)
            entry.stats.shapes.append(entry.shape)
            self._resume(entry, part)
        self._stepped_at = self.clock()
        # Beginning jobs and choosing among them takes time from requests as well.
        took = self._stepped_at - self._round_began
        self._round_began = self._stepped_at
        self.observer.step(index, seconds, nodes, len(entries))
        self.observer.predicted(index, level.model.learn(shape, took))
        self._charge(work, took)

    def _charge(self, work: dict[Entry, float], took: float) -> None:
        """Account for a step by class, in proportion to what each job added to it."""
        total = sum(work.values()) or 1.0
        used: dict[ServiceClass, float] = {}
        for entry, seconds in work.items():
            used[entry.service_class] = used.get(entry.service_class, 0.0) + took * seconds / total
        wanting = {entry.service_class for entry in self._running} | set(used)
        self._shares.charge(wanting, used)
        now = self.clock()
        decay = math.exp(-max(0.0, now - self._used_at) / _USE_SECONDS)
        for each in ServiceClass:
            self._used[each] = decay * self._used[each] + used.get(each, 0.0) / _USE_SECONDS
        self._used_at = now

    def _make_room(self, level: int) -> None:
        """The last to have started gives its KV slots back. That may be the job in need, when it alone is too large."""
        newest = [entry for entry in self._running if entry.started and entry.plan.level == level][-1]
        self.observer.shed(newest.service_class, "kv_full")
        self._end(newest, error=Overloaded("the KV cache is full", retry_after_s=0.1))

    def _resume(self, entry: Entry, output: StepOutput | None) -> None:
        engine = self.levels[entry.plan.level].engine
        try:
            entry.wanted = next(entry.job) if output is None else entry.job.send(output)
            entry.shape = shape_of(entry.wanted, engine.length)
            self._free_slots[entry.plan.level] = engine.free_slots()
        except StopIteration as stop:
            entry.plan.learn(entry.stats.shapes)
            self._end(entry, result=stop.value)
        except Exception as error:
            self._end(entry, error=error)

    def _out_of_time(self, entry: Entry) -> None:
        late = DeadlineExceeded("the deadline passed before the answer was ready")
        if entry.wanted is None:
            self.observer.shed(entry.service_class, "expired")
            self._end(entry, error=late)
            return
        try:
            entry.job.throw(OutOfTime())
        except StopIteration as stop:
            self._end(entry, result=stop.value)
        except OutOfTime:
            self.observer.shed(entry.service_class, "expired")
            self._end(entry, error=late)
        except Exception as error:
            self._end(entry, error=error)
        else:
            self._end(entry, error=EngineError("a job went on although it was out of time"))

    def _end(self, entry: Entry, result: Any = None, error: BaseException | None = None) -> None:
        try:
            entry.job.close()
        except Exception as failure:
            error = error or failure
        index = entry.plan.level
        self._free_slots[index] = self.levels[index].engine.free_slots()
        with self._lock:
            self._running.remove(entry)
        self.observer.queue(self.in_flight)
        entry.stats.ended = self.clock()
        if error is None and entry.stats.ended > entry.deadline and not entry.future.cancelled():
            # The step took longer than predicted. A late answer is none.
            self.observer.shed(entry.service_class, "expired")
            error = DeadlineExceeded("the deadline passed before the answer was ready")
        if error is not None and not isinstance(error, BidtrieError):
            logger.debug("a job failed", exc_info=error)
        # A request that is cancelled at this very moment has nobody left to tell.
        if entry.future.set_running_or_notify_cancel():
            if error is not None:
                entry.future.set_exception(error)
            else:
                entry.future.set_result(Outcome(result, entry.stats))
