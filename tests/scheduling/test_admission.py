"""Predicted finish times, who fits, and who is given up."""

import itertools
import random

import pytest
from bidtrie.scheduling.admission import Backlog, Demand, finish, hopeless

NUMBERS = {"start": 1.0, "step_fixed": 0.5, "step_room": 2.0}


def late(demands, margin=1.0):
    """Who misses its deadline, from the formula written out."""
    found = set()
    for i, demand in enumerate(demands):
        work = sum(each.work for each in demands[: i + 1])
        steps = max(each.steps for each in demands[: i + 1])
        time = work + NUMBERS["step_fixed"] * max(steps, work / NUMBERS["step_room"])
        if NUMBERS["start"] + margin * time > demand.deadline:
            found.add(i)
    return found


def drawn(rng: random.Random, count: int) -> list[Demand]:
    return sorted(
        Demand(1 + rng.uniform(0, 12), rng.uniform(0.1, 3), rng.randint(1, 6)) for _ in range(count)
    )


def test_finish_times_of_cases_that_can_be_worked_out():
    steps = {"step_fixed": 0.5, "step_room": 2.0}
    assert finish(1.0, 2, **steps) == 1 + 2 * 0.5
    # Two share their steps; the work of four fills two steps.
    assert finish(1.0 + 3.0, max(2, 1), **steps) == 4 + 2 * 0.5
    assert finish(1.0 + 9.0, max(2, 1), **steps) == 10 + 5 * 0.5
    assert finish(0.0, 0, **steps) == 0


@pytest.mark.parametrize("margin", [1.0, 1.4])
def test_one_fits_if_it_is_in_time_and_makes_nobody_late(margin):
    rng = random.Random(3)
    outcomes = set()
    for _ in range(2000):
        present = drawn(rng, rng.randint(0, 5))
        (new,) = drawn(rng, 1)
        together = sorted([*present, new])
        place = together.index(new)
        before = {present[i] for i in late(present, margin)}
        after = {together[i] for i in late(together, margin)}
        expected = place not in late(together, margin) and after <= before
        shuffled = rng.sample(present, len(present))
        assert Backlog(shuffled, **NUMBERS, margin=margin).fits(new) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_without_a_deadline_all_fits_that_delays_nobody():
    backlog = Backlog([Demand(float("inf"), 100.0, 5)], **NUMBERS, margin=1.0)
    assert backlog.fits(Demand(float("inf"), 1000.0, 5))


def test_who_is_given_up_makes_the_rest_be_in_time():
    rng = random.Random(4)
    for _ in range(1000):
        demands = drawn(rng, rng.randint(1, 6))
        gone = hopeless(demands, **NUMBERS, margin=1.0)
        assert not late([demand for i, demand in enumerate(demands) if i not in gone])
        if not late(demands):
            assert not gone


def test_as_few_as_possible_are_given_up_where_work_is_all_that_counts():
    """Moore's rule is exact for jobs one after another: no cost of steps, no limit on sharing."""
    rng = random.Random(5)
    numbers = {"start": 0.0, "step_fixed": 0.0, "step_room": 1.0}
    for _ in range(300):
        demands = sorted(Demand(rng.uniform(0, 6), rng.uniform(0.1, 3), 1) for _ in range(rng.randint(1, 6)))
        gone = hopeless(demands, **numbers, margin=1.0)

        def feasible(kept: tuple[Demand, ...]) -> bool:
            ends = itertools.accumulate(each.work for each in kept)
            return all(end <= each.deadline for end, each in zip(ends, kept, strict=True))

        most = max(
            count
            for count in range(len(demands) + 1)
            if any(feasible(kept) for kept in itertools.combinations(demands, count))
        )
        assert len(demands) - len(gone) == most
