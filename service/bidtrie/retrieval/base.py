"""The interface of everything that ranks a catalog's segments for a text without the language model."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bidtrie.trie.catalog import Bool

Float32 = NDArray[np.float32]


class Retriever(ABC):
    """Scores segments by their texts. Built over one catalog; safe to use from several threads; deterministic."""

    name: ClassVar[str]
    """What it is called in settings and reports, for example "lexical"."""
    unrelated: ClassVar[float]
    """The score of a segment that has nothing in common with the query; such segments are never shortlisted."""

    @abstractmethod
    def scores(self, query: str) -> Float32:
        """How well each segment fits a text, higher is better: float32 [N] in the order of the catalog's segments."""

    def shortlist(self, query: str, k: int, allowed: Bool | None = None) -> list[tuple[int, float]]:
        """The best `k` segments as (index, score), best first; ties go to the segment that comes first.

        allowed  bool [N], only these are considered; None: all. Fewer than `k` come back where fewer are related.
        """
        scores = self.scores(query)
        if allowed is not None:
            scores = np.where(allowed, scores, np.float32(self.unrelated))
        least = _lower_bound(scores, k)
        pool = np.flatnonzero(scores >= least if least > self.unrelated else scores > self.unrelated)
        if k < len(pool):
            # Everything above the k-th score, and as many of its equals, in order, as there is room for.
            values = scores[pool]
            kth = np.partition(values, len(pool) - k)[len(pool) - k] if k > 0 else np.inf
            above = pool[values > kth]
            pool = np.concatenate([above, pool[values == kth][: max(k, 0) - len(above)]])
            pool.sort()
        best = pool[np.argsort(-scores[pool], kind="stable")]
        return list(zip(best.tolist(), scores[best].tolist(), strict=True))


def _lower_bound(scores: Float32, k: int) -> float:
    """A score that at least k scores reach, found without ordering all of them; -inf where that is no help.

    Of parts of equal size, the k best ones' maxima are k scores.
    """
    size = len(scores) // (16 * max(k, 1))
    if size < 16:
        return -np.inf
    parts = len(scores) // size
    maxima = scores[: parts * size].reshape(parts, size).max(axis=1)
    return float(np.partition(maxima, parts - k)[parts - k]) if k > 0 else -np.inf
