"""The scheduler on a virtual clock, under random loads: promises that hold for every one of them."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scheduling.simulation import Asked, SimulatedEngine, Simulation, World, knowing_model, step_seconds

#: Runs of the properties below, all together.
RUNS = 10_000
FINAL = {"full", "partial", "Overloaded", "DeadlineExceeded", "cancelled", "ValueError"}
MODEL = knowing_model()


def wrong_by(factors: list[float]) -> Callable[[int], float]:
    """Step times that the cost model does not expect."""
    state = {"i": 0}

    def seconds(nodes: int) -> float:
        state["i"] += 1
        return step_seconds(nodes) * factors[state["i"] % len(factors)]

    return seconds


@st.composite
def requests(draw: st.DrawFn) -> list[Asked]:
    count = draw(st.integers(1, 12))
    spread = draw(st.sampled_from([0.0, 0.02, 0.2]))
    asked = []
    for _ in range(count):
        arrival = draw(st.floats(0, 1)) * spread
        budget = draw(st.sampled_from([0.0, 0.002, 0.01, 0.05, 0.1, float("inf")]))
        steps = tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=5)))
        cancel = draw(st.none() | st.floats(0, 0.1))
        asked.append(
            Asked(
                arrival,
                arrival + budget,
                steps,
                service_class=draw(st.sampled_from(list(ServiceClass))),
                partial_after=draw(st.none() | st.integers(1, 2)),
                cancel_at=None if cancel is None else arrival + cancel,
                fails=draw(st.integers(0, 9)) == 0,
            )
        )
    return asked


def check(simulation: Simulation, max_requests: int) -> None:
    engine, scheduler = simulation.engine, simulation.scheduler
    for asked in simulation.requests:
        assert asked.outcome in FINAL, "exactly one final status"
        assert all(begin < asked.deadline for begin in asked.dispatched), (
            "nothing is dispatched after its deadline"
        )
        if asked.deadline == float("inf") and asked.cancel_at is None and not asked.fails:
            assert asked.outcome in ("full", "Overloaded"), (
                "who has time gets the whole answer: no starvation"
            )
            if asked.outcome == "Overloaded":
                assert asked.ended == asked.arrival, "and is refused at once, or not at all"
        if asked.outcome == "cancelled" and asked.dispatched:
            assert asked.cancel_at is not None
            assert max(asked.dispatched) <= asked.cancel_at + 1e-9, "a cancelled request gets no further step"
    assert simulation.most_in_flight <= max_requests, "the queue is bounded"
    assert scheduler.in_flight == 0
    assert not engine.open_sequences, "no slot leaks"
    begins = [begin for begin, _, _ in engine.steps]
    assert begins == sorted(begins)


@settings(max_examples=RUNS // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.integers(1, 12), st.sampled_from([0.001, 0.01, 0.1]))
def test_promises_hold_where_steps_take_what_is_predicted(asked, max_requests, max_step_s):
    simulation = Simulation(asked, max_requests=max_requests, max_step_s=max_step_s, model=knowing_model())
    simulation.run()
    check(simulation, max_requests)
    for each in simulation.requests:
        if each.outcome in ("full", "partial"):
            assert each.ended <= each.deadline + 1e-9, "no late answer"


@settings(max_examples=RUNS // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.integers(1, 12), st.lists(st.floats(0.2, 8.0), min_size=1, max_size=6))
def test_promises_hold_where_predictions_are_wrong(asked, max_requests, factors):
    simulation = Simulation(
        asked,
        max_requests=max_requests,
        engine=lambda world: SimulatedEngine(world, seconds=wrong_by(factors)),
    )
    simulation.run()
    check(simulation, max_requests)


class Careless(Scheduler):
    """Neither leaves nor refuses in time: what the checks above must catch."""

    def _leave(self, entry, now):
        return False


class Leaking(Scheduler):
    """Forgets to end the job of a cancelled request."""

    def _end(self, entry, result=None, error=None):
        if entry.future.cancelled():
            self._running.remove(entry)
            self.forgotten = entry
            return
        super()._end(entry, result, error)


@pytest.mark.parametrize("broken", [Careless, Leaking])
def test_the_checks_can_fail(broken):
    """The negative control."""
    asked = [
        Asked(0.0, 0.1, (20, 5)),
        Asked(0.0, 0.05, (20, 20, 20), cancel_at=0.003),
        Asked(0.0, 0.02, (5, 1)),
    ]
    simulation = Simulation(
        asked,
        scheduler=broken,
        engine=lambda world: SimulatedEngine(world, seconds=lambda nodes: 3 * step_seconds(nodes)),
    )

    def run_and_check() -> None:
        simulation.run()
        check(simulation, 256)

    with pytest.raises(AssertionError):
        run_and_check()


def steady(rate: float, count: int, steps: tuple[int, ...], budget: float, **more) -> list[Asked]:
    return [Asked(i / rate, i / rate + budget, steps, **more) for i in range(count)]


def test_creatives_keep_a_share_under_a_flood_of_targeting_and_take_little_of_it():
    flood = steady(400, 800, (19, 6, 6, 6), 0.12)
    alone = Simulation(flood)
    alone.run()
    creative = [Asked(0.1, float("inf"), (2,) * 30, service_class=ServiceClass.CREATIVE) for _ in range(4)]
    creative += [Asked(0.1, float("inf"), (2,) * 5, service_class=ServiceClass.PREGENERATION)]
    mixed = Simulation([*steady(400, 800, (19, 6, 6, 6), 0.12), *creative])
    mixed.run()
    targeting = sum(a.outcome == "full" for a in mixed.requests if a.service_class is ServiceClass.TARGETING)
    assert targeting >= 0.9 * alone.in_time()
    assert all(a.outcome == "full" for a in creative)
    assert max(a.ended for a in creative) < 2.0, "not after the flood only"


def test_fills_wait_until_nothing_else_wants_the_engine():
    fill = Asked(0.0, float("inf"), (10, 10), service_class=ServiceClass.FILL)
    simulation = Simulation([fill, *steady(300, 60, (10, 2), 0.1)])
    simulation.run()
    assert fill.outcome == "full"
    others = [begin for begin, _, who in simulation.engine.steps if fill.sequence not in who]
    assert max(fill.dispatched) > sorted(others)[len(others) // 2]


def test_a_step_waits_for_company_only_where_it_is_cheap():
    def flat(nodes: int) -> float:
        return 0.004 + 1e-6 * nodes

    def run(seconds: Callable[[int], float]) -> Simulation:
        asked = [Asked(i * 0.003, i * 0.003 + 0.2, (4, 4)) for i in range(40)]
        simulation = Simulation(
            asked,
            engine=lambda world: SimulatedEngine(world, seconds=seconds),
            model=knowing_model(seconds),
        )
        simulation.run()
        assert simulation.in_time() == len(asked)
        return simulation

    def idle_between(simulation: Simulation) -> float:
        steps = simulation.engine.steps
        return sum(max(0.0, b[0] - a[1]) for a, b in itertools.pairwise(steps))

    shared = run(flat)
    assert len(shared.engine.steps) < 60, "requests share steps"
    assert idle_between(run(lambda nodes: 1e-5 + 3e-4 * nodes)) > 0  # light load: idle for want of work only
    lone = Simulation(
        [Asked(0.0, 0.2, (4, 4))],
        engine=lambda world: SimulatedEngine(world, seconds=flat),
        model=knowing_model(flat),
    )
    lone.run()
    assert lone.requests[0].ended == pytest.approx(2 * flat(4)), "nobody is known to come: no waiting"


def test_goodput_holds_at_ten_times_the_load():
    def once(rate: float, seed: int) -> float:
        # At random: in even steps everything ends at the same moments, and rounding decides.
        arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, round(rate * 2))).tolist()
        simulation = Simulation([Asked(at, at + 0.12, (19, 6, 6, 6, 6)) for at in arrivals])
        simulation.run()
        late = [a for a in simulation.requests if a.outcome == "full" and a.ended > a.deadline + 1e-9]
        assert not late
        return simulation.in_time() / arrivals[-1]

    def goodput(rate: float) -> float:
        return float(np.mean([once(rate, seed) for seed in range(6)]))

    rates = {rate: goodput(rate) for rate in (40, 80, 160, 800)}
    assert rates[800] >= 0.9 * max(rates.values()), rates


def test_predictions_that_refuse_everybody_are_corrected():
    model = knowing_model()
    for _ in range(300):
        model.learn(StepShape(20, 0, 0, 0, 1), 1.0)  # the machine stood still
    simulation = Simulation(steady(40, 400, (19, 6, 6), 0.12, partial_after=1), model=model)
    simulation.run()
    outcomes = [asked.outcome for asked in simulation.requests]
    assert outcomes[0] != "full", "the negative control: it begins with refusals or parts"
    assert outcomes[-100:] == ["full"] * 100


def test_what_is_refused_on_an_idle_engine_is_run_for_nobody():
    model = knowing_model()
    for _ in range(300):
        model.learn(StepShape(20, 0, 0, 0, 1), 1.0)
    asked = [Asked(0.0, 0.01, (20, 5)), Asked(1.0, 1.01, (20, 5)), Asked(1.001, 1.011, (20, 5))]
    simulation = Simulation(asked, model=model)
    simulation.run()
    assert [each.outcome for each in asked] == ["Overloaded"] * 3
    assert [each.ended for each in asked] == [each.arrival for each in asked], "all are told at once"
    assert [len(each.jobs) for each in asked] == [1, 1, 0], "the engine was not idle when the third came"
    assert [len(steps) for each in asked for steps in each.jobs] == [2, 2]
    check(simulation, 256)


def test_an_idle_engine_tries_what_has_much_time_whatever_is_predicted():
    model = knowing_model()
    for _ in range(300):
        model.learn(StepShape(20, 0, 0, 0, 1), 3.0)
    asked = [Asked(0.0, 1.5, (20, 5)), Asked(2.0, 2.9, (20, 5))]
    simulation = Simulation(asked, model=model)
    simulation.run()
    assert [each.outcome for each in asked] == ["full", "Overloaded"]
    check(simulation, 256)


def test_a_world_keeps_its_events_in_order():
    world, seen = World(), []
    for time in (0.3, 0.1, 0.2):
        world.at(time, lambda time=time: seen.append((time, world.now)))
    world.advance(0.25)
    assert seen == [(0.1, 0.1), (0.2, 0.2)]
    assert world.now == 0.25
