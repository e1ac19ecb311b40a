"""A tree over a flat list of keywords: wide at the top, narrow below, no group larger than a stated size.

The model cannot search a list of hundreds of thousands of siblings level by level: nothing tells it where to look. The
list is therefore split by the look of its texts (`cluster_vectors`) with spherical k-means (`cluster_kmeans`), and each
group is split again until it is small enough. A group is named after its most telling words (`cluster_names`): that is
what the model reads. Scoring many children costs one step and little more than few, so the first split is wide; below,
narrow ones keep siblings that look alike together.

All of it is deterministic: the same list and seed give the same tree.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bidtrie.errors import CatalogError
from bidtrie.trie.catalog import MAX_TIERS, Segment
from bidtrie.trie.cluster_kmeans import split
from bidtrie.trie.cluster_names import GroupNames
from bidtrie.trie.cluster_vectors import Int64, text_vectors

#: Most keywords of a group, unless told otherwise; fewer than 4 cannot be kept.
GROUP_SIZE = 100
LEAST_GROUP_SIZE = 4
#: Most groups of the first split and of the later ones.
TOP_WIDTH = 128
WIDTH = 16


def cluster_segments(
    segments: Sequence[Segment],
    largest: int = GROUP_SIZE,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[Segment, ...]:
    """The segments of a flat list in their order, each with the tiers of its groups put before its own.

    Ids, names, keywords and marks stay what they were. `progress` is called with the share of segments that have found
    their place. Raises CatalogError if a segment has tiers already or `largest` is below 4.
    """
    if largest < LEAST_GROUP_SIZE:
        raise CatalogError(f"groups of at most {largest} keywords: expected at least {LEAST_GROUP_SIZE}")
    for number, segment in enumerate(segments, 1):
        if len(segment.path) != 1:
            raise CatalogError(
                f"segment {number}, {segment.id!r}, has {len(segment.path)} tiers: only flat lists are clustered"
            )
    groups = _groups([segment.name for segment in segments], largest, seed, progress)
    return tuple(
        replace(segment, path=(*group, segment.name)) for segment, group in zip(segments, groups, strict=True)
    )


def _groups(
    texts: Sequence[str], largest: int, seed: int, progress: Callable[[float], None]
) -> list[tuple[str, ...]]:
    """The names of each text's groups from the top down; none where all texts fit into one group."""
    result: list[tuple[str, ...]] = [()] * len(texts)
    if len(texts) <= largest:
        return result
    vectors = text_vectors(texts)
    names = GroupNames(texts, vectors)
    placed = 0
    # Groups that are still too large, with the names that lead to them.
    waiting: list[tuple[Int64, tuple[str, ...]]] = [(np.arange(len(texts)), ())]
    while waiting:
        rows, path = waiting.pop()
        if len(path) >= MAX_TIERS - 1:
            raise CatalogError(f"{len(texts):,} keywords make too many tiers of groups of at most {largest}")
        width = min(WIDTH if path else TOP_WIDTH, max(2, -(-2 * len(rows) // largest)))
        # The seed of a split is its group's, whatever the order in which groups are split.
        parts = split(vectors, rows, width, np.random.default_rng([seed, len(path), int(rows[0]), len(rows)]))
        for part, name in zip(parts, names.of(rows, parts), strict=True):
            below = (*path, name)
            if len(part) > largest:
                waiting.append((part, below))
                continue
            for row in part.tolist():
                result[row] = below
            placed += len(part)
        progress(placed / len(texts))
    return result
