"""Goodput against the optimum of a scheduler that knows the future: all schedules of small cases, tried out."""

import random
from functools import lru_cache

import pytest
from scheduling.simulation import Asked, Simulation, step_seconds

CASES = 100
#: Seconds over which the requests of a case arrive: all at once, in far too short a time, and in about what they need.
SPREADS = (0.0, 0.02, 0.04, 0.08)
_CLOSE = 1e-9


def optimum(requests: list[Asked]) -> int:
    """The most full answers in time, over all subsets of what is ready in every step, and over waiting."""

    def rest(i: int, step: int) -> float:
        return sum(step_seconds(nodes) for nodes in requests[i].steps[step:])

    @lru_cache(None)
    def best(now: float, at: tuple[int, ...]) -> int:
        open_ = [i for i, step in enumerate(at) if step < len(requests[i].steps)]
        ready = [
            i
            for i in open_
            if requests[i].arrival <= now + _CLOSE and now + rest(i, at[i]) <= requests[i].deadline + _CLOSE
        ]
        coming = [requests[i].arrival for i in open_ if requests[i].arrival > now + _CLOSE]
        most = best(min(coming), at) if coming else 0
        for mask in range(1, 1 << len(ready)):
            members = [i for k, i in enumerate(ready) if mask >> k & 1]
            end = round(now + step_seconds(sum(requests[i].steps[at[i]] for i in members)), 9)
            if any(end > requests[i].deadline + _CLOSE for i in members):
                continue
            after = tuple(step + (i in members) for i, step in enumerate(at))
            done = sum(after[i] == len(requests[i].steps) for i in members)
            most = max(most, done + best(end, after))
        return most

    return best(0.0, (0,) * len(requests))


def cases(spread: float, seed: int) -> list[list[Asked]]:
    """Three to five requests that mostly cannot all be answered."""
    draw = random.Random(seed)
    made = []
    for _ in range(CASES):
        requests = []
        for _ in range(draw.randint(3, 5)):
            arrival = round(draw.uniform(0, spread), 6)
            steps = (draw.randint(8, 24), *(draw.randint(1, 8) for _ in range(draw.randint(0, 2))))
            budget = sum(map(step_seconds, steps)) * draw.uniform(1.1, 3.5)
            requests.append(Asked(arrival, round(arrival + budget, 6), steps))
        made.append(requests)
    return made


def shares(**options) -> list[float]:
    """Goodput over the optimum, case by case."""
    found = []
    for seed, spread in enumerate(SPREADS):
        for requests in cases(spread, seed):
            simulation = Simulation(requests, **options)
            simulation.run()
            most = optimum(requests)
            assert simulation.in_time() <= most, "more than all schedules: the reference is wrong"
            found.append(simulation.in_time() / most)
    return found


def test_goodput_is_near_the_optimum():
    found = shares()
    assert sum(found) / len(found) >= 0.95, sum(found) / len(found)


def test_a_worse_scheduler_is_not():
    """The negative control: one small step at a time, hardly any sharing."""
    found = shares(max_step_s=0.001)
    assert sum(found) / len(found) < 0.95


def test_the_optimum_of_cases_that_can_be_worked_out():
    alone = step_seconds(10)
    assert optimum([Asked(0.0, alone, (10,))]) == 1
    assert optimum([Asked(0.0, alone * 0.99, (10,))]) == 0
    assert optimum([Asked(0.0, alone, (10,)), Asked(0.0, alone, (10,))]) == 1
    together = step_seconds(20)
    assert optimum([Asked(0.0, together, (10,)), Asked(0.0, together, (10,))]) == 2
    # Waiting for the second one pays.
    assert optimum([Asked(0.0, 0.001 + together, (10,)), Asked(0.001, 0.001 + together, (10,))]) == 2
    assert optimum([Asked(0.0, 0.0009 + together, (10,)), Asked(0.001, 0.001 + together, (10,))]) == 1


@pytest.mark.parametrize("spread", SPREADS)
def test_cases_ask_for_more_than_can_be_had(spread):
    made = cases(spread, 0)
    assert sum(optimum(requests) for requests in made) < sum(map(len, made))
