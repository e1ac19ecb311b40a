"""The ways to search a catalog, best first: what is tried when there is no time for the one before.

Fewer branches cost little accuracy at tier 1 and save most of the steps: docs/scheduling.md has the figures.
"""

from dataclasses import dataclass

from bidtrie.requests import Search
from bidtrie.trie.search_options import LIKELY_MARGIN, NARROW_MARGIN


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """How to search, in the terms of `SearchOptions`. `steps`: what a search that is cut takes; None: it is not cut."""

    name: str
    method: Search
    margin: float = LIKELY_MARGIN
    beam_width: int = 1
    levels: int | None = None
    branches: int | None = None
    steps: int | None = None


FULL = "full"
#: Branches of the plan that looks behind the first choice.
_FEW = 5


def target_plans(method: Search, beam_width: int) -> tuple[TargetPlan, ...]:
    """The ladder for a request that is to be searched like this; `beam_width` is for a beam."""
    if method is Search.BEAM:
        beam = TargetPlan(FULL, method, beam_width=beam_width)
        half = [TargetPlan("narrow", method, beam_width=beam_width // 2)] if beam_width > 1 else []
        cut = [
            TargetPlan(name, method, beam_width=beam_width, levels=levels, steps=levels)
            for name, levels in (("coarse", 2), ("coarsest", 1))
        ]
        return beam, *half, *cut
    return (
        TargetPlan(FULL, method),
        TargetPlan("narrow", Search.LIKELY, margin=NARROW_MARGIN),
        TargetPlan("coarse", Search.LIKELY, branches=_FEW, steps=2),
        TargetPlan("coarsest", Search.LIKELY, branches=1, steps=1),
    )
