"""A request inside the scheduler."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.scheduling.admission import Demand
from bidtrie.scheduling.cost_model import CostModel
from bidtrie.scheduling.job import Job, JobStats, Plan
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import NOTHING, StepShape

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A finished job's result and where its time went."""

    result: T
    stats: JobStats


@dataclass(slots=True, eq=False)
class Entry:
    """A job with its deadline and what is still expected of it. Times are on the scheduler's clock, in seconds."""

    service_class: ServiceClass
    deadline: float
    """Infinite: none."""
    arrived: float
    plan: Plan[Any] = field(init=False)
    job: Job[Any] = field(init=False)
    later_s: list[float] = field(init=False)
    """At i: expected seconds, run alone, of all steps after step i."""
    later_work_s: list[float] = field(init=False)
    """At i: what those steps add to steps that others pay for."""
    future: "Future[Outcome[Any]]" = field(default_factory=Future)
    stats: JobStats = field(default_factory=JobStats)
    wanted: TreeBatch | None = None
    shape: StepShape = NOTHING
    """Of `wanted`; before the first step, what the plan expects."""
    started: bool = False
    in_step: bool = False
    """The engine is computing `wanted` now."""
    cheapest: Plan[Any] | None = None
    """What it may shrink to before its first step, so that others find room."""
    shrinks: bool = False
    """It is to take its cheapest plan, unless it begins first."""

    def take(self, plan: Plan[Any], model: CostModel) -> None:
        """Begin with a plan, whose costs `model` knows."""
        self.plan, self.job, self.wanted, self.shape = plan, plan.make(), None, plan.outline[0]
        self.later_s, self.later_work_s = expectations(plan.outline, model)
        self.stats.plan, self.stats.level = plan.name, plan.level

    @property
    def step(self) -> int:
        """The step that it waits for, from 0."""
        return self.stats.steps

    def later(self) -> float:
        """Expected seconds of its steps after the next one, run alone."""
        return self.later_s[self.step] if self.step < len(self.later_s) else 0.0

    def cheapest_demand(self, model: CostModel) -> Demand:
        """What it would want with its cheapest plan."""
        assert self.cheapest is not None
        return plan_demand(self.cheapest, self.deadline, model)

    def demand(self, model: CostModel) -> Demand:
        """What it still wants after the step that is running now."""
        if self.shrinks and not self.started:
            return self.cheapest_demand(model)
        later = self.later_work_s[self.step] if self.step < len(self.later_work_s) else 0.0
        steps = max(1, len(self.later_s) - self.step)
        if self.in_step:
            return Demand(self.deadline, later, steps - 1)
        return Demand(self.deadline, model.marginal(self.shape) + later, steps)

    def latest_end(self) -> float:
        """When its next step must have ended for the later ones to end in time."""
        return self.deadline - self.later()


def plan_demand(plan: Plan[Any], deadline: float, model: CostModel) -> Demand:
    """What a request with this plan wants."""
    _, later_work = expectations(plan.outline, model)
    return Demand(deadline, model.marginal(plan.outline[0]) + later_work[0], len(plan.outline))


def expectations(outline: tuple[StepShape, ...], model: CostModel) -> tuple[list[float], list[float]]:
    """`later_s` and `later_work_s` of an outline."""
    alone, work = [0.0], [0.0]
    for shape in reversed(outline[1:]):
        alone.append(alone[-1] + model.mean(shape))
        work.append(work[-1] + model.marginal(shape))
    return alone[::-1], work[::-1]
