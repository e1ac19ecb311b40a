"""The ways to search a catalog, best first: what is tried when there is no time for the one before.

Fewer levels cost little accuracy at tier 1 and save most of the steps: docs/capacity.md has the figures.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """A beam width, and how many levels of branches are scored (None: all)."""

    name: str
    beam_width: int
    levels: int | None = None


FULL = "full"


def target_plans(beam_width: int) -> tuple[TargetPlan, ...]:
    """The ladder for a request that asks for this beam."""
    plans = [TargetPlan(FULL, beam_width)]
    if beam_width > 1:
        plans.append(TargetPlan("narrow", max(1, beam_width // 2)))
    plans += [TargetPlan("coarse", beam_width, 2), TargetPlan("coarsest", beam_width, 1)]
    return tuple(plans)
