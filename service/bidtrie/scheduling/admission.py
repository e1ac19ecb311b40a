"""Whether a request that arrives can be answered in time, beside those that were promised an answer before it."""

from collections.abc import Sequence
from typing import NamedTuple


class Demand(NamedTuple):
    """What a request still wants: seconds of work beside the steps' own cost, steps, and when it must be done."""

    deadline: float
    work: float
    steps: int


def finish_times(
    demands: Sequence[Demand], *, start: float, step_fixed: float, step_room: float
) -> list[float]:
    """When each request, in order of deadline, is predicted to be done.

    Requests share steps. All work up to a request's own has to be done before it, and as many steps as the longest of
    them needs, or as their work fills: each step costs `step_fixed` seconds and takes `step_room` seconds of work.
    """
    times = []
    work, steps = 0.0, 0
    for demand in demands:
        work += demand.work
        steps = max(steps, demand.steps)
        times.append(start + work + step_fixed * max(steps, work / step_room))
    return times


def fits(
    present: Sequence[Demand],
    new: Demand,
    *,
    start: float,
    step_fixed: float,
    step_room: float,
    margin: float,
) -> bool:
    """Whether `new` is done in time and makes nobody late who would be in time without it.

    `margin` scales the predicted time of everything, from `start` on.
    """
    order = sorted(present)
    position = sum(each.deadline <= new.deadline for each in order)
    if new.deadline == float("inf"):
        return True
    before = finish_times(order, start=start, step_fixed=step_fixed, step_room=step_room)
    after = finish_times(
        [*order[:position], new, *order[position:]], start=start, step_fixed=step_fixed, step_room=step_room
    )

    def late(time: float, deadline: float) -> bool:
        return start + margin * (time - start) > deadline

    if late(after[position], new.deadline):
        return False
    return not any(
        late(after[i + 1], order[i].deadline) and not late(before[i], order[i].deadline)
        for i in range(position, len(order))
    )


def hopeless(
    demands: Sequence[Demand], *, start: float, step_fixed: float, step_room: float, margin: float
) -> set[int]:
    """Which of the requests, in order of deadline, to give up so that most of all are in time.

    Where one is late, the one with the most work among it and those before it goes (Moore 1968, "An n job, one machine
    sequencing algorithm for minimizing the number of late jobs": exact for jobs that run one after another).
    """
    kept: list[int] = []
    given_up: set[int] = set()
    for i in range(len(demands)):
        kept.append(i)
        while kept:
            chosen = [demands[k] for k in kept]
            end = finish_times(chosen, start=start, step_fixed=step_fixed, step_room=step_room)[-1]
            if start + margin * (end - start) <= demands[i].deadline:
                break
            worst = max(kept, key=lambda k: demands[k].work)
            kept.remove(worst)
            given_up.add(worst)
            if worst == i:
                break
    return given_up
