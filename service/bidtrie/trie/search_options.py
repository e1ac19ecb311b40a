"""How to search a catalog's trie."""

from dataclasses import dataclass

from bidtrie.requests import Normalization, Search

#: What a search leaves out unless it is exact: see `bounds.LikelyBound`. Half as wide under load.
LIKELY_MARGIN, NARROW_MARGIN = 2.0, 0.4


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search.

    method         best-first with a proven bound (exact) or a likely one, or a beam
    beam_width     BEAM: prefixes that go on at each level
    margin         LIKELY: how much better than expected a branch may turn out before it is left out wrongly
    levels         BEAM: score at most this many levels of branches, the rest is `partial`; None: all
    branches       best-first: score at most this many branches, the rest is `partial`; None: all
    allow_partial  when time runs out, return what is known by then
    """

    top_k: int
    beam_width: int = 4
    method: Search = Search.BEAM
    normalization: Normalization = Normalization.TRIE
    prior_weight: float = 0.0
    margin: float = LIKELY_MARGIN
    levels: int | None = None
    branches: int | None = None
    allow_partial: bool = True
