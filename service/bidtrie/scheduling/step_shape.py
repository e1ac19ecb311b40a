"""What makes a step long: its size, in the few numbers that a cost model needs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bidtrie.engine.tree_batch import TreeBatch


class StepShape(NamedTuple):
    """The size of a step, or of one job's part of it; shapes of parts add up."""

    nodes: int = 0
    context: int = 0
    """Sum over the nodes of the committed tokens that each attends to."""
    full_rows: int = 0
    """Wanted rows that take the whole vocabulary: all logits, or the log-sum-exp."""
    cells: int = 0
    """Logits of candidates, over all rows that name candidates."""
    jobs: int = 0

    def plus(self, other: "StepShape") -> "StepShape":
        """Both in one step."""
        return StepShape(*map(sum, zip(self, other, strict=True)))


NOTHING = StepShape()


def shape_of(batch: TreeBatch, length: Callable[[int], int]) -> StepShape:
    """The shape of one job's batch; `length` gives a sequence's committed tokens."""
    sequences = batch.sequence
    first = int(sequences[0]) if len(sequences) else 0
    if (sequences == first).all():
        context = len(batch) * length(first) if len(sequences) else 0
    else:
        each, count = np.unique(sequences, return_counts=True)
        context = sum(length(int(s)) * int(n) for s, n in zip(each, count, strict=True))
    rows = len(batch.logits_for)
    if batch.candidates is None:
        return StepShape(len(batch), context, rows, 0, 1)
    full = np.diff(batch.candidates.offsets) == 0
    if batch.logsumexp is not None:
        full |= batch.logsumexp
    return StepShape(len(batch), context, int(full.sum()), len(batch.candidates.ids), 1)
