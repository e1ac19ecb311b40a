"""Whose work goes first."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ServiceClass(StrEnum):
    """In order of urgency: each goes before those that follow, which keep a share of the engine all the same."""

    TARGETING = "targeting"
    CREATIVE = "creative"
    PREGENERATION = "pregeneration"
    """Texts for later."""
    FILL = "fill"
    """Answers that came too late for their request, for the cache: computed while nothing else wants the engine."""


#: Shares of the engine where several classes want all of it. A class that wants less leaves the rest to the others.
WEIGHTS: Mapping[ServiceClass, float] = MappingProxyType(
    {
        ServiceClass.TARGETING: 64.0,
        ServiceClass.CREATIVE: 4.0,
        ServiceClass.PREGENERATION: 1.0,
        ServiceClass.FILL: 0.0,
    }
)

RANK: Mapping[ServiceClass, int] = MappingProxyType({each: i for i, each in enumerate(ServiceClass)})


class Shares:
    """What each class is owed, in seconds of the engine, after weighted fair sharing of every step."""

    #: A class is owed no more than this, so that it cannot hold up the others for long after a pause.
    MOST_OWED_S = 0.05

    def __init__(self) -> None:
        self._owed = dict.fromkeys(ServiceClass, 0.0)

    def owed(self, service_class: ServiceClass) -> float:
        """Seconds that the class may take ahead of more urgent ones; negative: it has had more than its share."""
        return self._owed[service_class]

    def charge(self, wanting: set[ServiceClass], used: Mapping[ServiceClass, float]) -> None:
        """Account for a step: which classes wanted the engine, and the seconds that each took of it."""
        total = sum(used.values())
        weights = sum(WEIGHTS[each] for each in wanting)
        for each in ServiceClass:
            if each not in wanting:
                self._owed[each] = 0.0
            elif weights:
                owed = self._owed[each] + total * WEIGHTS[each] / weights - used.get(each, 0.0)
                self._owed[each] = min(max(owed, -self.MOST_OWED_S), self.MOST_OWED_S)
