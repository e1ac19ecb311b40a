"""Whether a request that arrives can be answered in time, beside those that were promised an answer before it."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple


class Demand(NamedTuple):
    """What a request still wants: seconds of work beside the steps' own cost, steps, and when it must be done."""

    deadline: float
    work: float
    steps: int


def finish(work: float, steps: int, *, step_fixed: float, step_room: float) -> float:
    """Seconds until requests are done that together want so much work, the longest of them so many steps.

    Requests share steps: there are as many as the longest needs, or as the work fills. Each costs `step_fixed` seconds
    and takes `step_room` seconds of work.
    """
    return work + step_fixed * max(steps, work / step_room)


class Backlog:
    """Who was promised an answer, and whether one more fits among them."""

    def __init__(
        self, present: Sequence[Demand], *, start: float, step_fixed: float, step_room: float, margin: float
    ) -> None:
        """`start` is when the engine is free; `margin` scales the predicted time of everything from then on.

        All work up to a request's own, in order of deadline, has to be done before it.
        """
        self._order = sorted(present)
        self._start, self._fixed, self._room, self._margin = start, step_fixed, step_room, margin
        # Work up to each request and the steps of the longest until there, then what there is before the first.
        self._work, self._steps = [0.0], [0]
        for demand in self._order:
            self._work.append(self._work[-1] + demand.work)
            self._steps.append(max(self._steps[-1], demand.steps))

    def _late(self, work: float, steps: int, deadline: float) -> bool:
        time = finish(work, steps, step_fixed=self._fixed, step_room=self._room)
        return self._start + self._margin * time > deadline

    def fits(self, new: Demand) -> bool:
        """Whether a request is done in time, and makes nobody late who would be in time without it."""
        order, work, steps = self._order, self._work, self._steps
        position = bisect_right(order, new.deadline, key=lambda demand: demand.deadline)
        longest = max(steps[position], new.steps)
        if self._late(work[position] + new.work, longest, new.deadline):
            return False
        for i in range(position, len(order)):
            longest = max(longest, order[i].steps)
            if self._late(work[i + 1] + new.work, longest, order[i].deadline) and not self._late(
                work[i + 1], steps[i + 1], order[i].deadline
            ):
                return False
        return True


def hopeless(
    demands: Sequence[Demand], *, start: float, step_fixed: float, step_room: float, margin: float
) -> set[int]:
    """Which of the requests, in order of deadline, to give up so that most of all are in time.

    Where one is late, the one with the most work among it and those before it goes (Moore 1968, "An n job, one machine
    sequencing algorithm for minimizing the number of late jobs": exact for jobs that run one after another).
    """
    kept: list[int] = []
    given_up: set[int] = set()

    def end() -> float:
        work = sum(demands[k].work for k in kept)
        steps = max(demands[k].steps for k in kept)
        return start + margin * finish(work, steps, step_fixed=step_fixed, step_room=step_room)

    for i, demand in enumerate(demands):
        kept.append(i)
        while i not in given_up and end() > demand.deadline:
            worst = max(kept, key=lambda k: demands[k].work)
            kept.remove(worst)
            given_up.add(worst)
    return given_up
