"""A planned step, as it goes to every worker: numpy arrays, so that it can leave the process."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.tree_batch import Int32


@dataclass(frozen=True, slots=True)
class StepInput:
    """T nodes, R wanted rows.

    tokens, positions, slots            int32 [T]
    view                                the arguments VIEW of `bidtrie.engine.vllm.ops`, int32
    rows                                int32 [R], wanted nodes
    candidate_offsets, candidate_ids    int32 [R + 1] and [N]; an empty row is the whole vocabulary
    logsumexp                           bool [R]
    """

    tokens: Int32
    positions: Int32
    slots: Int32
    view: tuple[Int32, ...]
    rows: Int32
    candidate_offsets: Int32
    candidate_ids: Int32
    logsumexp: NDArray[np.bool_]
