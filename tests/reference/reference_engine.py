"""An engine that is slow and obviously correct: every logit comes from a forward pass over its whole path."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import PREFIX_END, Int32, StepOutput, TreeBatch, kept_parent
from bidtrie.errors import EngineError, OutOfSlots
from bidtrie.models.checkpoint import Checkpoint
from reference.llama import Float64, ReferenceLlama


@dataclass(eq=False)
class Node:
    """A token in the KV cache: a live node, an ancestor that one needs, or part of a prefix."""

    token: int
    sequence: int
    parent: "Node | None"
    """None: it hangs on the prefix's end."""
    kept: bool = False

    def chain(self) -> "list[Node]":
        """Ancestors from the prefix's end downwards, then the node itself."""
        chain, node = [], self
        while node is not None:
            chain.append(node)
            node = node.parent
        return chain[::-1]


class ReferenceEngine(Engine):
    """The rules of `Engine` in Python objects; logits in float64, rounded to float32 at the end.

    Each node has a forward pass of its own, so that its logits depend, to the bit, on what it sees only; the model
    remembers passes, so that tests on tiny models stay fast.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        slots: int = 16384,
        max_nodes: int = 512,
        model: ReferenceLlama | None = None,
    ) -> None:
        """`model` computes the checkpoint, if it is not to be read again."""
        self.model = ReferenceLlama(checkpoint) if model is None else model
        self.spec = EngineSpec(
            name="reference",
            model_hash=f"{checkpoint.content_hash}-float64",
            vocab_size=checkpoint.config.vocab_size,
            context_length=checkpoint.config.context_length,
            max_nodes=max_nodes,
            slots=slots,
            weights="float64",
        )
        self._prefixes: dict[int, list[Node]] = {}
        #: Live nodes by handle.
        self.nodes: dict[int, Node] = {}
        self._next_sequence = 0
        self._next_handle = 0

    def open(self, share: int | None = None, length: int | None = None) -> int:
        prefix = [] if share is None else self._prefix(share)
        if length is not None and not 0 <= length <= len(prefix):
            raise EngineError(f"length: {length}, expected 0 to {len(prefix)}")
        sequence = self._next_sequence
        self._next_sequence += 1
        self._prefixes[sequence] = prefix[:length]
        return sequence

    def close(self, sequence: int) -> None:
        self._prefix(sequence)
        del self._prefixes[sequence]
        self.nodes = {h: node for h, node in self.nodes.items() if node.sequence != sequence}

    def length(self, sequence: int) -> int:
        return len(self._prefix(sequence))

    def step(self, batch: TreeBatch) -> StepOutput:
        nodes = self._place(batch)
        if len(nodes) > self.free_slots():
            raise OutOfSlots(f"{len(nodes)} nodes, but {self.free_slots()} slots are free")
        rows = [self._logits(nodes[i], nodes) for i in batch.logits_for]
        logsumexp = np.full(len(rows), np.nan, np.float32)
        wanted = []
        for r, row in enumerate(rows):
            if batch.logsumexp is not None and batch.logsumexp[r]:
                logsumexp[r] = row.max() + np.log(np.exp(row - row.max()).sum())
            ids = self.candidate_ids(batch, r)
            wanted.append(row[ids] if len(ids) else row)
        offsets = np.cumsum([0, *(len(row) for row in wanted)], dtype=np.int64)
        logits = np.concatenate([*wanted, np.empty(0)]).astype(np.float32)

        handles = range(self._next_handle, self._next_handle + len(nodes))
        self._next_handle += len(nodes)
        self.nodes = {h: node for h, node in self.nodes.items() if node.kept}
        self.nodes.update(zip(handles, nodes, strict=True))
        return StepOutput(np.asarray(handles, np.int32), offsets, logits, logsumexp)

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        prefix = self._prefix(sequence)
        if not len(nodes):
            return
        path = [self._node(handle) for handle in nodes]
        above: Node | None = None
        for handle, node in zip(nodes, path, strict=True):
            if node.sequence != sequence:
                raise EngineError(f"node {handle} belongs to sequence {node.sequence}, expected {sequence}")
            if node.parent is not above:
                raise EngineError(f"node {handle} does not continue the path from the prefix's end")
            above = node
        prefix.extend(path)
        survivors = {}
        for handle, node in self.nodes.items():
            chain = node.chain()
            if node.sequence != sequence or (path[-1] in chain[:-1]):
                survivors[handle] = node
        below = {id(n): n for node in survivors.values() for n in node.chain() if n.parent is path[-1]}
        for node in below.values():
            node.parent = None
        self.nodes = survivors

    def keep(self, nodes: Sequence[int]) -> None:
        for node in [self._node(handle) for handle in nodes]:
            node.kept = True

    def release(self, nodes: Sequence[int]) -> None:
        for handle in nodes:
            if not self._node(handle).kept:
                raise EngineError(f"node {handle} is not kept")
        for handle in set(nodes):
            self.nodes.pop(handle).kept = False

    def free_slots(self) -> int:
        used = {id(node) for prefix in self._prefixes.values() for node in prefix}
        used |= {id(above) for node in self.nodes.values() if node.kept for above in node.chain()}
        return self.spec.slots - len(used)

    def path(self, handle: int) -> tuple[int, ...]:
        """All tokens from the start of its sequence down to a live node."""
        node = self._node(handle)
        return tuple(n.token for n in self._prefixes[node.sequence] + node.chain())

    @staticmethod
    def candidate_ids(batch: TreeBatch, row: int) -> Int32:
        """The token ids that a wanted row asks for; none: the whole vocabulary."""
        if batch.candidates is None:
            return np.empty(0, np.int32)
        offsets = batch.candidates.offsets
        return batch.candidates.ids[offsets[row] : offsets[row + 1]]

    def _prefix(self, sequence: int) -> list[Node]:
        if sequence not in self._prefixes:
            raise EngineError(f"sequence {sequence} is not open")
        return self._prefixes[sequence]

    def _node(self, handle: int) -> Node:
        if handle not in self.nodes:
            raise EngineError(f"node {handle} is not alive")
        return self.nodes[handle]

    def _kept(self, handle: int) -> Node:
        node = self._node(handle)
        if not node.kept:
            raise EngineError(f"node {handle} was not kept")
        return node

    def _place(self, batch: TreeBatch) -> list[Node]:
        """Check the whole batch and return its nodes, unknown to the engine as yet."""
        count, rows, vocabulary = len(batch), len(batch.logits_for), self.spec.vocab_size
        if count > self.spec.max_nodes:
            raise EngineError(f"{count} nodes, expected at most {self.spec.max_nodes}")
        if len(batch.sequence) != count or len(batch.parent) != count:
            raise EngineError("tokens, sequence and parent differ in length")
        if any(not 0 <= i < count for i in batch.logits_for):
            raise EngineError(f"logits_for: expected nodes 0 to {count - 1}")
        if batch.candidates is not None:
            offsets, ids = batch.candidates.offsets, batch.candidates.ids
            ordered = len(offsets) == rows + 1 and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
            if not ordered or offsets[-1] != len(ids):
                raise EngineError(f"candidates: expected {rows} rows")
            if any(not 0 <= i < vocabulary for i in ids):
                raise EngineError(f"candidates: expected tokens 0 to {vocabulary - 1}")
        if batch.logsumexp is not None and len(batch.logsumexp) != rows:
            raise EngineError(f"logsumexp: expected {rows} rows")
        nodes: list[Node] = []
        for i in range(count):
            token, sequence, parent = int(batch.tokens[i]), int(batch.sequence[i]), int(batch.parent[i])
            if not 0 <= token < vocabulary:
                raise EngineError(f"node {i}: token {token}, expected 0 to {vocabulary - 1}")
            prefix = self._prefix(sequence)
            if parent >= i:
                raise EngineError(f"node {i}: parent {parent}, expected an earlier node")
            if parent >= 0:
                above = nodes[parent]
            elif parent == PREFIX_END:
                above = None
            else:
                above = self._kept(kept_parent(parent))
            if above is not None and above.sequence != sequence:
                raise EngineError(f"node {i}: its parent belongs to sequence {above.sequence}")
            node = Node(token, sequence, above)
            if len(prefix) + len(node.chain()) > self.spec.context_length:
                raise EngineError(f"node {i}: longer than the context of {self.spec.context_length} tokens")
            nodes.append(node)
        return nodes

    def _sees(self, node: Node, batch: Sequence[Node]) -> tuple[list[int], list[int]]:
        """The tokens that a node sees, itself last, and their positions."""
        tokens = [n.token for n in self._prefixes[node.sequence] + node.chain()]
        return tokens, list(range(len(tokens)))

    def _logits(self, node: Node, batch: Sequence[Node]) -> Float64:
        return self.model.last_logits(*self._sees(node, batch))
