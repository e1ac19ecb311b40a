"""Groups of similar vectors, so that a query looks at the likeliest groups only.

An inverted file as in Sivic and Zisserman, "Video Google" (2003), for dense vectors: spherical k-means (Dhillon and
Modha, 2001) on a sample, then every vector goes to its most similar centre. Seeded.
"""

import numpy as np
from numpy.typing import NDArray

from bidtrie.retrieval.base import Float32
from bidtrie.retrieval.word_vectors import unit

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

ROWS_A_CELL = 1_024
_SAMPLE = 32_768
_ITERATIONS = 6
_AT_ONCE = 16_384


def cells(codes: NDArray[np.int8]) -> tuple[Int32, Int64, Float32]:
    """Divide vectors into cells of at most twice `ROWS_A_CELL`.

    codes  int8 [N, D]; only their directions count

    Returns (order, begin, centres): int32 [N], the vectors cell by cell, ascending within a cell; int64 [cells + 1],
    where each cell begins in that order; float32 [cells, D]. A larger group becomes several cells with one centre.
    """
    random = np.random.default_rng(0)
    rows = np.sort(random.choice(len(codes), min(_SAMPLE, len(codes)), replace=False))
    sample = unit(codes[rows].astype(np.float32))
    count = max(1, min(len(codes) // ROWS_A_CELL, len(sample)))
    centres = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(_ITERATIONS):
        nearest = (sample @ centres.T).argmax(axis=1)
        by_centre = np.argsort(nearest, kind="stable")
        filled, starts = np.unique(nearest[by_centre], return_index=True)
        centres[filled] = unit(np.add.reduceat(sample[by_centre], starts, axis=0))
    label = np.concatenate(
        [
            (codes[i : i + _AT_ONCE].astype(np.float32) @ centres.T).argmax(axis=1)
            for i in range(0, len(codes), _AT_ONCE)
        ]
    )
    order = np.argsort(label, kind="stable").astype(np.int32)
    begin, owner = [0], []
    for centre, size in enumerate(np.bincount(label, minlength=count).tolist()):
        while size > 0:
            taken = size if size <= 2 * ROWS_A_CELL else ROWS_A_CELL
            begin.append(begin[-1] + taken)
            owner.append(centre)
            size -= taken
    return order, np.array(begin, np.int64), centres[owner]
