"""`bidtrie serve` with a plain queue in place of the scheduler, for `bench.overload` to compare with.

Requests are taken in order of arrival, with their full plan, as long as there is room in a step; nobody is refused but
by a full queue, and a request leaves when its deadline has passed.
"""

import functools
from collections.abc import Sequence

from bidtrie.cli import main
from bidtrie.scheduling.cost_model import CostModel
from bidtrie.scheduling.entry import Entry
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.serving import runtime


class FirstInFirstOut(Scheduler):
    """No predictions."""

    def _admit(
        self, plans: Sequence[Plan], deadline: float, service_class: ServiceClass, now: float
    ) -> Plan | None:
        return plans[0]

    def _too_late(self, entry: Entry, model: CostModel, now: float) -> bool:
        return False

    def _members(self, now: float) -> list[Entry]:
        room = self.levels[0].engine.spec.max_nodes
        members = []
        for entry in self._running:
            if entry.shape.nodes <= room:
                members.append(entry)
                room -= entry.shape.nodes
        return members

    def _wait(self, members: Sequence[Entry], now: float) -> float:
        return 0.0


if __name__ == "__main__":
    runtime.Runtime = functools.partial(runtime.Runtime, scheduler=FirstInFirstOut)  # type: ignore[misc, assignment]
    main()
