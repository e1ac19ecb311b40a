"""Spherical k-means with groups of bounded size: Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data
Using Clustering" (2001), started as in Arthur and Vassilvitskii, "k-means++" (2007).

Centres are found on a sample. Then every text goes to the most similar centre that has room, the most similar texts
first: a group holds at most twice its even share (1.5 times where there are two or three groups), so that splitting
again and again comes to an end, also where all texts look the same.
"""

import numpy as np
from numpy.typing import NDArray

from bidtrie.trie.cluster_vectors import Float32, Int64, Rows

_SAMPLE = 20_000
_ITERATIONS = 10
# Rows times centres whose similarities are computed at once.
_AT_ONCE = 1 << 18


def split(vectors: Rows, rows: Int64, groups: int, random: np.random.Generator) -> list[Int64]:
    """Divide rows into at least 2 and at most `groups` non-empty groups, ascending within each: int64 each.

    groups  at least 2, and fewer than half of the rows
    """
    if len(rows) > _SAMPLE:
        sample = vectors.take(rows[np.sort(random.choice(len(rows), _SAMPLE, replace=False))])
    else:
        sample = vectors.take(rows)
    columns, local = np.unique(sample.column, return_inverse=True)
    centres = _centres(Rows(sample.begin, local, sample.weight), len(columns), groups, random)
    # A column that the sample lacks is in no centre.
    at = np.full(int(max(vectors.column.max(initial=0), columns.max(initial=0))) + 1, len(columns))
    at[columns] = np.arange(len(columns))
    here = vectors.take(rows)
    label = _assign(Rows(here.begin, at[here.column], here.weight), centres)
    order = np.argsort(label, kind="stable")
    cuts = np.cumsum(np.bincount(label, minlength=groups))[:-1]
    return [part for part in np.split(rows[order], cuts) if len(part)]


def _centres(sample: Rows, columns: int, groups: int, random: np.random.Generator) -> Float32:
    """Centres: float32 [columns + 1, groups] of length 1; the last row, of unknown columns, is 0."""
    row = sample.row_of_entries()
    centres = np.zeros((columns + 1, groups), np.float32)
    # 1 minus the similarity to the nearest centre is half the squared distance to it.
    far = np.ones(len(sample))
    for group in range(groups):
        total = far.sum()
        chosen = int(random.choice(len(sample), p=far / total)) if total > 0 else group % len(sample)
        entries = slice(sample.begin[chosen], sample.begin[chosen + 1])
        np.add.at(centres[:, group], sample.column[entries], sample.weight[entries])
        similar = np.bincount(row, centres[sample.column, group] * sample.weight, minlength=len(sample))
        far = np.minimum(far, np.clip(1.0 - similar, 0.0, 1.0))
        far[far < 1e-6] = 0.0
    label = None
    for _ in range(_ITERATIONS):
        nearest, similarity = _nearest(sample, centres, np.ones(groups, np.bool_))
        if label is not None and np.array_equal(nearest, label):
            break
        label = nearest
        sums = np.bincount(
            sample.column * groups + label[row], sample.weight, minlength=columns * groups
        ).reshape(columns, groups)
        # A group that lost all takes the text that fits worst where it is.
        for group in np.flatnonzero(np.bincount(label, minlength=groups) == 0).tolist():
            worst = int(np.argmin(similarity))
            similarity[worst] = np.inf
            entries = slice(sample.begin[worst], sample.begin[worst + 1])
            np.add.at(sums[:, group], sample.column[entries], sample.weight[entries])
        length = np.sqrt((sums**2).sum(axis=0))
        centres[:-1] = sums / np.where(length > 0, length, 1.0)
    return centres


def _assign(rows: Rows, centres: Float32) -> Int64:
    """The group of each row, none over its limit: int64 [rows]."""
    groups = centres.shape[1]
    share = 2.0 if groups >= 4 else 1.5
    room = np.full(groups, int(np.ceil(share * len(rows) / groups)))
    label = np.full(len(rows), -1, np.int64)
    waiting = np.arange(len(rows))
    while len(waiting):
        nearest, similarity = _nearest(rows.take(waiting), centres, room > 0)
        # By group, the most similar first, the earlier of equals first.
        order = np.lexsort((waiting, -similarity, nearest))
        counts = np.bincount(nearest, minlength=groups)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        taken = order[rank < room[nearest[order]]]
        label[waiting[taken]] = nearest[taken]
        room -= np.bincount(nearest[taken], minlength=groups)
        waiting = waiting[label[waiting] < 0]
    return label


def _nearest(
    rows: Rows, centres: Float32, open_groups: NDArray[np.bool_]
) -> tuple[Int64, NDArray[np.float64]]:
    """The most similar open group of each row, the first of equals, and the similarity: int64, float64 [rows]."""
    groups = centres.shape[1]
    label = np.empty(len(rows), np.int64)
    similarity = np.empty(len(rows), np.float64)
    size = max(1, _AT_ONCE // groups)
    for first in range(0, len(rows), size):
        part = slice(first, min(first + size, len(rows)))
        begin = rows.begin[part.start : part.stop + 1]
        entries = slice(begin[0], begin[-1])
        scores = np.zeros((part.stop - part.start, groups), np.float32)
        # `reduceat` has no empty ranges: rows without entries keep their zeros.
        filled = np.flatnonzero(np.diff(begin))
        if len(filled):
            products = centres[rows.column[entries]] * rows.weight[entries, None]
            scores[filled] = np.add.reduceat(products, begin[filled] - begin[0], axis=0)
        scores[:, ~open_groups] = -np.inf
        label[part] = scores.argmax(axis=1)
        similarity[part] = scores.max(axis=1)
    return label, similarity
