"""The token trie of a catalog: flat arrays in compressed sparse rows.

Nodes are numbered breadth first, the children of a node by ascending token id, so that a node's children are the
range `first_child[node] : first_child[node + 1]` and a whole level is a range too. The layout follows STATIC
(arXiv 2602.22647), which keeps constrained decoding's trie in compressed sparse rows.

Every path ends in a child of its own, the terminator, which carries a token like any other node and names the segment.
A path that is a token prefix of another (87 of the 704 paths of IAB's Content Taxonomy 3.1 with SmolLM2's tokenizer)
thus competes with its continuations; for the others the terminator is an only child. The trie is built over whatever
tokens the tokenizer makes: nothing hangs on the tokens of a path beginning with those of the path above it, which
holds for these paths and this tokenizer but not for every one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError
from bidtrie.trie.catalog import Bool, Catalog, Int32, with_descendants


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
    depth            int32 [n], tokens from the root
    """

    first_child: Int32
    token: Int32
    segment: Int32
    segment_parent: Int32
    terminator: int
    tokenizer_hash: str
    catalog_version: str
    parent: Int32 = field(init=False)
    depth: Int32 = field(init=False)
    _terminators: Int32 = field(init=False, repr=False)
    _levels: tuple[int, ...] = field(init=False, repr=False)
    _leaf_begin: Int32 = field(init=False, repr=False)
    _leaf_end: Int32 = field(init=False, repr=False)
    _leaf_segments: Int32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the arrays and derive the rest; CatalogError if they are not a trie over all segments."""
        _check(self.first_child, self.token, self.segment, self.terminator, len(self.segment_parent))
        for name, value in _derive(self.first_child, self.segment).items():
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

    def children(self, node: int) -> range:
        """The children of a node, by ascending token id."""
        return range(int(self.first_child[node]), int(self.first_child[node + 1]))

    def terminator_of(self, segment: int) -> int:
        """The node at which a segment's path ends."""
        return int(self._terminators[segment])

    def path_nodes(self, segment: int) -> Int32:
        """The nodes of a segment's path from the root's child to the terminator, both included: int32."""
        node = self.terminator_of(segment)
        nodes = np.empty(int(self.depth[node]), np.int32)
        for i in range(len(nodes) - 1, -1, -1):
            nodes[i] = node
            node = int(self.parent[node])
        return nodes

    def path_tokens(self, segment: int) -> Int32:
        """The tokens of a segment's path, the terminator included: int32."""
        return self.token[self.path_nodes(segment)]

    def leaf_count(self, node: int) -> int:
        """How many segments end below a node or at it."""
        return int(self._leaf_end[node] - self._leaf_begin[node])

    def segments_below(self, node: int) -> Int32:
        """The segments that end below a node or at it, depth first: int32."""
        return self._leaf_segments[self._leaf_begin[node] : self._leaf_end[node]]

    def allowed(
        self, candidates: Sequence[int] | Int32 | None = None, blocked: Sequence[int] | Int32 = ()
    ) -> Bool:
        """The nodes that lead to an allowed segment: bool [n]; the root is False if nothing is allowed.

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
        np.cumsum(segments[self._leaf_segments], out=running[1:])
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
    paths = []
    for i in range(len(catalog)):
        text = catalog.path_text(i)
        path = np.asarray(encode(token_text(text)), np.int64)
        if not len(path):
            raise CatalogError(f"catalog {catalog.name}: the tokenizer makes no tokens of the path {text!r}")
        if path.min() < 0 or path.max() >= 1 << 31:
            raise CatalogError(
                f"catalog {catalog.name}: the tokenizer makes impossible token ids of {text!r}"
            )
        if (path == terminator).any():
            raise CatalogError(
                f"catalog {catalog.name}: the path {text!r} holds the token {terminator} that ends paths"
            )
        paths.append(np.append(path, terminator).astype(np.int32))
    offsets = np.zeros(len(paths) + 1, np.int64)
    np.cumsum([len(path) for path in paths], out=offsets[1:])
    return np.concatenate(paths), offsets


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
    depth = np.repeat(np.arange(len(levels) - 1, dtype=np.int32), np.diff(levels))
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
        "depth": depth,
        "_terminators": terminators,
        "_levels": tuple(levels),
        "_leaf_begin": leaf_begin,
        "_leaf_end": leaf_begin + size,
        "_leaf_segments": leaf_segments,
    }
