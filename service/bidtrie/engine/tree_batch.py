"""The tree batch: the one shape of work that every engine takes.

Prefill is a chain, decoding is one node, verification is a tree. A batch holds nodes of many
sequences; a node sees its sequence's committed prefix and its own ancestors, nothing else, and its
position is the prefix's length plus its depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

#: `parent` of a node that hangs on the end of its sequence's committed prefix.
PREFIX_END = -1


def kept_parent(node: int) -> int:
    """The `parent` entry that names a node kept from an earlier step by its handle."""
    return -2 - node


def _int32(values: Sequence[int] | NDArray[np.integer]) -> Int32:
    return np.ascontiguousarray(values, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Candidates:
    """For each wanted row, the token ids wanted: row r is `ids[offsets[r]:offsets[r + 1]]`.

    An empty row asks for the whole vocabulary.
    """

    offsets: Int32
    ids: Int32

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Int32]) -> "Candidates":
        sizes = [len(row) for row in rows]
        ids = np.concatenate([_int32(row) for row in rows]) if rows else _int32([])
        return cls(_int32(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])), ids)


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Nodes to compute in one engine step.

    tokens      int32 [T], token of each node
    sequence    int32 [T], which open sequence's prefix the node hangs on
    parent      int32 [T], an earlier node of this batch (its index, smaller than the node's own),
                PREFIX_END, or `kept_parent(handle)`
    logits_for  int32 [R], nodes (indices into this batch) whose next-token logits are wanted
    candidates  which token ids are wanted for each of the R rows; None: all of them for every row
    logsumexp   bool [R], rows that also want the log-sum-exp over the full vocabulary; None: none
    """

    tokens: Int32
    sequence: Int32
    parent: Int32
    logits_for: Int32
    candidates: Candidates | None = None
    logsumexp: NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        tokens: Sequence[int] | Int32,
        sequence: int | Sequence[int] | Int32,
        parent: Sequence[int] | Int32,
        logits_for: Sequence[int] | Int32 = (),
        candidates: Candidates | None = None,
        logsumexp: Sequence[bool] | NDArray[np.bool_] | bool = False,
    ) -> "TreeBatch":
        """Build a batch from lists; a single `sequence` or `logsumexp` stands for all nodes or rows."""
        count, rows = len(tokens), len(logits_for)
        sequences = np.full(count, sequence, np.int32) if isinstance(sequence, int) else _int32(sequence)
        wanted = np.full(rows, logsumexp, np.bool_) if isinstance(logsumexp, bool) else np.asarray(logsumexp)
        return cls(
            _int32(tokens),
            sequences,
            _int32(parent),
            _int32(logits_for),
            candidates,
            wanted if wanted.any() else None,
        )

    @classmethod
    def chain(
        cls,
        tokens: Sequence[int] | Int32,
        sequence: int,
        *,
        last_logits: bool = False,
        candidates: Candidates | None = None,
        logsumexp: bool = False,
    ) -> "TreeBatch":
        """A chain hanging on the prefix's end; with `last_logits` its last node's logits are wanted."""
        count = len(tokens)
        rows = [count - 1] if last_logits else []
        return cls.of(tokens, sequence, np.arange(-1, count - 1, dtype=np.int32), rows, candidates, logsumexp)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step returns for its batch.

    nodes      int32 [T], a handle for each node, valid until the next step unless kept or committed
    offsets    int64 [R + 1], row r of the logits is `logits[offsets[r]:offsets[r + 1]]`
    logits     float32 [offsets[R]], over the row's candidates in their order, or the vocabulary
    logsumexp  float32 [R], natural log, over the full vocabulary; NaN where not asked for
    """

    nodes: Int32
    offsets: Int64
    logits: Float32
    logsumexp: Float32

    def row(self, r: int) -> Float32:
        """The logits of wanted row `r`."""
        return self.logits[self.offsets[r] : self.offsets[r + 1]]


@dataclass(slots=True)
class Joined:
    """Several jobs' batches as one, and how to take the step's output apart again."""

    batch: TreeBatch
    _nodes: list[int] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Sequence[TreeBatch]) -> "Joined":
        if len(parts) == 1:
            return cls(parts[0], [0, len(parts[0])], [0, len(parts[0].logits_for)])
        nodes = [0, *np.cumsum([len(part) for part in parts]).tolist()]
        rows = [0, *np.cumsum([len(part.logits_for) for part in parts]).tolist()]
        parent = [
            np.where(part.parent >= 0, part.parent + at, part.parent)
            for part, at in zip(parts, nodes, strict=False)
        ]
        logits_for = [part.logits_for + at for part, at in zip(parts, nodes, strict=False)]
        candidates = None
        if any(part.candidates is not None for part in parts):
            sizes = [
                np.zeros(len(part.logits_for), np.int32)
                if part.candidates is None
                else np.diff(part.candidates.offsets)
                for part in parts
            ]
            candidates = Candidates(
                _int32(np.concatenate([[0], np.cumsum(np.concatenate(sizes))])),
                np.concatenate([part.candidates.ids for part in parts if part.candidates is not None]),
            )
        logsumexp = None
        if any(part.logsumexp is not None for part in parts):
            logsumexp = np.concatenate(
                [np.zeros(len(p.logits_for), np.bool_) if p.logsumexp is None else p.logsumexp for p in parts]
            )
        batch = TreeBatch(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.sequence for part in parts]),
            _int32(np.concatenate(parent)),
            _int32(np.concatenate(logits_for)),
            candidates,
            logsumexp,
        )
        return cls(batch, nodes, rows)

    def split(self, output: StepOutput) -> list[StepOutput]:
        """The output of each part, in the order in which the parts were joined."""
        parts = []
        for i in range(len(self._nodes) - 1):
            first, last = self._rows[i], self._rows[i + 1]
            offsets = output.offsets[first : last + 1]
            parts.append(
                StepOutput(
                    output.nodes[self._nodes[i] : self._nodes[i + 1]],
                    offsets - offsets[0],
                    output.logits[offsets[0] : offsets[-1]],
                    output.logsumexp[first:last],
                )
            )
        return parts
