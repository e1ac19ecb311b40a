"""The token trie of a catalog: flat arrays in compressed sparse rows.

Nodes are numbered breadth first, the children of a node by ascending token id, so that a node's children are the
range `first_child[node] : first_child[node + 1]` and a whole level is a range too. The layout follows STATIC
(arXiv 2602.22647), which keeps constrained decoding's trie in compressed sparse rows. STATIC's dense first levels are
left out: they answer which node a token leads to in one look-up, and here children are always taken as a whole range.
A node takes 24 bytes: 12 mapped from disk and 12 derived when it is loaded; a segment takes 20 more.

Every path ends in a child of its own, the terminator, which carries a token like any other node and names the segment.
A path that is a token prefix of another (87 of the 704 paths of IAB's Content Taxonomy 3.1 with SmolLM2's tokenizer)
thus competes with its continuations; for the others the terminator is an only child. The trie is built over whatever
tokens the tokenizer makes: nothing hangs on the tokens of a path beginning with those of the path above it, which
holds for these paths and this tokenizer but not for every one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError
from bidtrie.trie.allowed import Allowed, Int64
from bidtrie.trie.catalog import MAX_TIERS, SEPARATOR, Bool, Catalog, Int32, with_descendants

# Paths that are tokenized before their tokens become arrays.
_TOKENIZED_AT_ONCE = 1 << 16


def token_text(path_text: str) -> str:
    """What is tokenized for a path: with the space that follows the prompt."""
    return " " + path_text


@dataclass(frozen=True, eq=False)
class Trie:
    """A token trie over a catalog's segments.

    first_child      int32 [n + 1], the children of node i are first_child[i] : first_child[i + 1]
    token            int32 [n], the token that leads to a node; -1 at the root, which is node 0
    segment          int32 [n], the segment that a terminator ends, else -1
    segment_parent   int32 [N], the catalog's tree of segments, for blocking whole branches
    terminator       the token of every terminator
    tokenizer_hash   which tokenizer cut the paths
    catalog_version  which catalog they are of

    The rest follows from these:
    parent           int32 [n], -1 at the root
    leaf_segments    int32 [N], the segments in the order in which a walk depth first meets their ends: position p in
                     that order is segment leaf_segments[p]
    """

    first_child: Int32
    token: Int32
    segment: Int32
    segment_parent: Int32
    terminator: int
    tokenizer_hash: str
    catalog_version: str
    parent: Int32 = field(init=False)
    leaf_segments: Int32 = field(init=False, repr=False)
    _terminators: Int32 = field(init=False, repr=False)
    _levels: tuple[int, ...] = field(init=False, repr=False)
    _leaf_begin: Int32 = field(init=False, repr=False)
    _leaf_end: Int32 = field(init=False, repr=False)
    _by_parent: Int32 = field(init=False, repr=False)
    _parents: Int32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the arrays and derive the rest; CatalogError if they are not a trie over all segments."""
        _check(self.first_child, self.token, self.segment, self.terminator, len(self.segment_parent))
        derived = _derive(self.first_child, self.segment) | _children_of_segments(self.segment_parent)
        for name, value in derived.items():
            # The way to set a field of a frozen dataclass while it is made.
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.token)

    def __repr__(self) -> str:
        return (
            f"Trie({len(self):,} nodes, {len(self._terminators):,} segments, catalog {self.catalog_version})"
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """Where each level begins, and the number of nodes: level d is the nodes levels[d] : levels[d + 1]."""
        return self._levels

    @cached_property
    def depth(self) -> Int32:
        """Tokens from the root: int32 [n], made when it is first asked for."""
        return np.repeat(np.arange(len(self.levels) - 1, dtype=np.int32), np.diff(self.levels))

    def children(self, node: int) -> range:
        """The children of a node, by ascending token id."""
        return range(int(self.first_child[node]), int(self.first_child[node + 1]))

    def terminator_of(self, segment: int) -> int:
        """The node at which a segment's path ends."""
        return int(self._terminators[segment])

    def path_nodes(self, segment: int) -> Int32:
        """The nodes of a segment's path from the root's child to the terminator, both included: int32."""
        node = self.terminator_of(segment)
        nodes = []
        while node:
            nodes.append(node)
            node = int(self.parent[node])
        return np.array(nodes[::-1], np.int32)

    def path_tokens(self, segment: int) -> Int32:
        """The tokens of a segment's path, the terminator included: int32."""
        return self.token[self.path_nodes(segment)]

    def leaf_count(self, node: int) -> int:
        """How many segments end below a node or at it."""
        return int(self._leaf_end[node] - self._leaf_begin[node])

    def segments_below(self, node: int) -> Int32:
        """The segments that end below a node or at it, depth first: int32."""
        return self.leaf_segments[self._leaf_begin[node] : self._leaf_end[node]]

    @overload
    def leaf_range(self, nodes: int) -> tuple[int, int]: ...

    @overload
    def leaf_range(self, nodes: Int32 | Int64) -> tuple[Int32, Int32]: ...

    def leaf_range(self, nodes: int | Int32 | Int64) -> tuple[int | Int32, int | Int32]:
        """The positions in `leaf_segments` of what ends below nodes: first and last (exclusive), one or int32 [m]."""
        if np.ndim(nodes) == 0:
            return int(self._leaf_begin[nodes]), int(self._leaf_end[nodes])
        return self._leaf_begin[nodes], self._leaf_end[nodes]

    def segments_at(self, positions: Int32) -> Int32:
        """The segments at positions of `leaf_segments`: int32."""
        return self.leaf_segments[positions]

    def allow(
        self, candidates: Sequence[int] | Int32 | None = None, blocked: Sequence[int] | Int32 = ()
    ) -> Allowed:
        """What `allowed` tells, without an entry a node: its cost grows with the lists, not with the trie.

        candidates  segments of which alone the answer may consist; None: all
        blocked     segments that are not allowed, nor what is below them in the catalog's tree
        """
        if candidates is None:
            return Allowed(
                self, self._positions(self._with_descendants(np.asarray(blocked, np.int32))), False
            )
        chosen = np.unique(np.asarray(candidates, np.int32))
        if len(blocked):
            cut = np.unique(np.asarray(blocked, np.int32))
            above, free = chosen, np.ones(len(chosen), np.bool_)
            # From each candidate upwards: no need for all that is below what is blocked.
            for _ in range(MAX_TIERS):
                free &= cut[np.minimum(np.searchsorted(cut, above), len(cut) - 1)] != above
                above = np.where(above >= 0, self.segment_parent[above], -1)
            chosen = chosen[free]
        return Allowed(self, self._positions(chosen), True)

    def _positions(self, segments: Int32) -> Int32:
        """Where segments, each listed once, stand in `leaf_segments`, ascending: int32."""
        return np.sort(self._leaf_begin[self._terminators[segments]])

    def _with_descendants(self, segments: Int32) -> Int32:
        """Segments and all that is below them in the catalog's tree, each once: int32."""
        found = [segments]
        for _ in range(MAX_TIERS):
            first = np.searchsorted(self._parents, found[-1])
            counts = np.searchsorted(self._parents, found[-1], side="right") - first
            if not counts.any():
                break
            # The ranges first : first + counts, one after another.
            at = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            found.append(self._by_parent[at])
        return np.unique(np.concatenate(found)).astype(np.int32)

    def allowed(
        self, candidates: Sequence[int] | Int32 | None = None, blocked: Sequence[int] | Int32 = ()
    ) -> Bool:
        """The nodes that lead to an allowed segment: bool [n]; the root is False if nothing is allowed.

        An entry a node: `allow` tells the same at less cost.

        candidates  segments of which alone the answer may consist; None: all
        blocked     segments that are not allowed, nor what is below them in the catalog's tree
        """
        if candidates is None:
            segments = np.ones(len(self._terminators), np.bool_)
        else:
            segments = np.zeros(len(self._terminators), np.bool_)
            segments[np.asarray(candidates, np.int64)] = True
        if len(blocked):
            mask = np.zeros(len(self._terminators), np.bool_)
            mask[np.asarray(blocked, np.int64)] = True
            segments &= ~with_descendants(mask, self.segment_parent)
        # Depth first, the segments below a node are a range: a difference of running sums counts the allowed ones.
        running = np.zeros(len(segments) + 1, np.int32)
        np.cumsum(segments[self.leaf_segments], out=running[1:])
        result: Bool = running[self._leaf_end] > running[self._leaf_begin]
        return result

    @staticmethod
    def build(
        catalog: Catalog, encode: Callable[[str], Sequence[int]], terminator: int, tokenizer_hash: str
    ) -> "Trie":
        """Tokenize every path and build the trie.

        encode      token ids of a text, nothing added at its ends; given " " + the path's text
        terminator  token id that ends every path: the newline or end-of-text token

        Raises CatalogError if a path has no tokens, holds the terminator, or has the tokens of another path.
        """
        tokens, offsets = _tokenize(catalog, encode, terminator)
        first_child, token, segment = _build_arrays(catalog, tokens, offsets)
        return Trie(first_child, token, segment, catalog.parent, terminator, tokenizer_hash, catalog.version)


def _tokenize(
    catalog: Catalog, encode: Callable[[str], Sequence[int]], terminator: int
) -> tuple[Int32, NDArray[np.int64]]:
    """All paths' tokens, each with its terminator, one after another, and where each begins (int64 [N + 1])."""
    if not 0 <= terminator < 1 << 31:
        raise CatalogError(f"terminator token {terminator}: expected a token id")
    # One call a path: batches through `tokenizers` were no faster on two cores, where results are turned to lists.
    pieces, lengths = [], []
    batch: list[int] = []
    for i, segment in enumerate(catalog.segments):
        path = encode(token_text(SEPARATOR.join(segment.path)))
        if not len(path):
            raise CatalogError(
                f"catalog {catalog.name}: the tokenizer makes no tokens of the path {catalog.path_text(i)!r}"
            )
        batch += path
        batch.append(terminator)
        lengths.append(len(path) + 1)
        if len(batch) > _TOKENIZED_AT_ONCE:
            pieces.append(np.array(batch, np.int64))
            batch = []
    pieces.append(np.array(batch, np.int64))
    tokens = np.concatenate(pieces)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    _require_no(
        catalog, offsets, (tokens < 0) | (tokens >= 1 << 31), "the tokenizer makes impossible token ids of {}"
    )
    inside = tokens == terminator
    inside[offsets[1:] - 1] = False
    _require_no(catalog, offsets, inside, f"the path {{}} holds the token {terminator} that ends paths")
    return tokens.astype(np.int32), offsets


def _require_no(catalog: Catalog, offsets: NDArray[np.int64], found: Bool, message: str) -> None:
    """Raise CatalogError with the first path that has a token where `found` is true. found: bool [all tokens]."""
    if found.any():
        path = int(np.searchsorted(offsets, np.argmax(found), side="right")) - 1
        raise CatalogError(f"catalog {catalog.name}: {message.format(repr(catalog.path_text(path)))}")


def _build_arrays(catalog: Catalog, tokens: Int32, offsets: NDArray[np.int64]) -> tuple[Int32, Int32, Int32]:
    """first_child, token and segment, by levels: a level's nodes are the distinct (parent, token) pairs in order."""
    first, lengths = offsets[:-1], np.diff(offsets)
    token_levels = [np.array([-1], np.int32)]
    segment_levels = [np.array([-1], np.int32)]
    child_counts = []
    active = np.arange(len(catalog))
    # Which node of the level above each active path has reached, counted from that level's first.
    reached = np.zeros(len(catalog), np.int64)
    for depth in range(int(lengths.max())):
        keys = reached << 32 | tokens[first[active] + depth].astype(np.int64)
        distinct, inverse = np.unique(keys, return_inverse=True)
        child_counts.append(np.bincount(distinct >> 32, minlength=len(token_levels[-1])))
        token_levels.append((distinct & 0xFFFFFFFF).astype(np.int32))
        segment = np.full(len(distinct), -1, np.int32)
        ends = lengths[active] == depth + 1
        segment[inverse[ends]] = active[ends]
        if np.count_nonzero(segment >= 0) != np.count_nonzero(ends):
            _raise_equal_tokens(catalog, active[ends], inverse[ends])
        segment_levels.append(segment)
        active, reached = active[~ends], inverse[~ends]
    child_counts.append(np.zeros(len(token_levels[-1]), np.int64))
    first_child = np.concatenate([[1], 1 + np.cumsum(np.concatenate(child_counts))]).astype(np.int32)
    return first_child, np.concatenate(token_levels), np.concatenate(segment_levels)


def _raise_equal_tokens(catalog: Catalog, segments: NDArray[np.int64], nodes: NDArray[np.int64]) -> None:
    seen: dict[int, int] = {}
    for segment, node in zip(segments.tolist(), nodes.tolist(), strict=True):
        if node in seen:
            raise CatalogError(
                f"catalog {catalog.name}: the tokenizer makes the same tokens of the paths "
                f"{catalog.path_text(seen[node])!r} and {catalog.path_text(segment)!r}"
            )
        seen[node] = segment


def _check(first_child: Int32, token: Int32, segment: Int32, terminator: int, segments: int) -> None:
    """Raise CatalogError unless the arrays are a trie in breadth-first order over `segments` segments."""

    def require(condition: bool | np.bool_, what: str) -> None:
        if not condition:
            raise CatalogError(f"token trie: {what}")

    nodes = len(token)
    require(
        all(a.dtype == np.int32 and a.ndim == 1 for a in (first_child, token, segment)),
        "expected int32 vectors",
    )
    require(
        nodes > 1 and len(first_child) == nodes + 1 and len(segment) == nodes, "array lengths do not match"
    )
    counts = np.diff(first_child.astype(np.int64))
    require(first_child[0] == 1 and first_child[-1] == nodes and counts.min() >= 0, "children out of range")
    require((first_child[:-1] > np.arange(nodes)).all(), "nodes are not in breadth-first order")
    require(token[0] == -1 and token[1:].min() >= 0, "token ids out of range")
    leaves = counts == 0
    require(
        np.array_equal(leaves, segment >= 0), "a segment ends where a path goes on, or a path ends in none"
    )
    require(
        (token[leaves] == terminator).all() and (token[~leaves] != terminator).all(), "misplaced terminators"
    )
    require(
        np.count_nonzero(leaves) == segments
        and np.array_equal(np.sort(segment[leaves]), np.arange(segments)),
        "the segments are not those of the catalog",
    )
    siblings = np.ones(nodes, np.bool_)
    siblings[first_child[:-1][counts > 0]] = False
    siblings[0] = False
    require((np.diff(token)[siblings[1:]] > 0).all(), "siblings are not in order of their tokens")


def _derive(first_child: Int32, segment: Int32) -> dict[str, object]:
    """What follows from the arrays: see Trie."""
    nodes = len(segment)
    counts = np.diff(first_child)
    parent = np.empty(nodes, np.int32)
    parent[0] = -1
    parent[1:] = np.repeat(np.arange(nodes, dtype=np.int32), counts)
    levels = [0, 1]
    while levels[-1] < nodes:
        levels.append(int(first_child[levels[-1]]))
    leaves = np.flatnonzero(segment >= 0)
    terminators = np.empty(len(leaves), np.int32)
    terminators[segment[leaves]] = leaves
    size = (segment >= 0).astype(np.int32)
    for begin, end in zip(levels[-2:0:-1], levels[:1:-1], strict=True):
        first, last = int(parent[begin]), int(parent[end - 1]) + 1
        sums = np.bincount(parent[begin:end] - first, weights=size[begin:end], minlength=last - first)
        size[first:last] += sums.astype(np.int32)
    # Siblings divide their parent's range of leaves in order.
    before = np.cumsum(size, dtype=np.int64) - size
    leaf_begin = np.zeros(nodes, np.int32)
    for begin, end in pairwise(levels[1:]):
        above = parent[begin:end]
        leaf_begin[begin:end] = leaf_begin[above] + (before[begin:end] - before[first_child[above]])
    leaf_segments = np.empty(len(leaves), np.int32)
    leaf_segments[leaf_begin[leaves]] = segment[leaves]
    return {
        "parent": parent,
        "_terminators": terminators,
        "_levels": tuple(levels),
        "_leaf_begin": leaf_begin,
        "_leaf_end": leaf_begin + size,
        "leaf_segments": leaf_segments,
    }


def _children_of_segments(parent: Int32) -> dict[str, object]:
    """The segments by their parents, and those parents: what is right below a segment is a range of both."""
    order = np.argsort(parent, kind="stable").astype(np.int32)
    return {"_by_parent": order, "_parents": np.ascontiguousarray(parent[order])}
