"""An engine under test and the reference engine, driven through the same calls and compared after each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import StepOutput, TreeBatch, kept_parent
from bidtrie.errors import EngineError, OutOfSlots
from bidtrie.models.checkpoint import Checkpoint
from reference.llama import ReferenceLlama
from reference.reference_engine import ReferenceEngine


class MakeEngine(Protocol):
    def __call__(self, *, slots: int, max_nodes: int, threads: int) -> Engine:
        """An engine of that size; `threads` may be ignored by an engine that has no such setting."""


@dataclass(frozen=True)
class Subject:
    """An engine that the conformance suite runs on, and what it promises."""

    make: MakeEngine
    checkpoint: Checkpoint
    model: ReferenceLlama
    """Computes the checkpoint as the engine is meant to, rounding of activations included."""
    tolerance: float
    """Largest absolute difference of a logit from the reference."""
    typical: float | None = None
    """Largest difference of a fifth of the rows, if the engine rounds so that only some can be met closely."""
    batch_invariant: bool = True
    """A node's logits are the same bits whatever else is in the batch."""
    exact_slots: bool = True
    """A node takes one KV slot, so that `free_slots` and OutOfSlots follow from counting."""


class Twin:
    """The subject's engine and the reference engine under one set of handles, the reference's.

    Every method makes the same call on both and asserts that they agree: on lengths and slots, and on logits
    within the subject's tolerance. Where the reference raises, nothing is called on the engine: `rejects` says
    that both must raise. With `bits`, the engine's logits of a token path must also be the same bits whenever
    and however that path is computed; `seen` carries what was computed from one twin to the next.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        slots: int = 512,
        max_nodes: int = 64,
        threads: int = 1,
        bits: bool = False,
        seen: "dict[tuple[int, ...], np.ndarray] | None" = None,
    ) -> None:
        self.subject = subject
        self.engine = subject.make(slots=slots, max_nodes=max_nodes, threads=threads)
        self.reference = ReferenceEngine(
            subject.checkpoint, slots=slots, max_nodes=max_nodes, model=subject.model
        )
        self.bits = bits
        self.seen = {} if seen is None else seen
        self.sequences: dict[int, int] = {}
        self.open_sequences: list[int] = []
        self.differences: list[float] = []
        self.nodes: dict[int, int] = {}

    def __enter__(self) -> "Twin":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.engine.shutdown()
        if error is None and self.subject.typical is not None and self.differences:
            assert np.quantile(self.differences, 0.2) <= self.subject.typical, "hardly a row is met closely"

    def open(self, share: int | None = None, length: int | None = None) -> int:
        sequence = self.reference.open(share, length)
        self.sequences[sequence] = self._accepted(
            "open", None if share is None else self.sequences[share], length
        )
        self.open_sequences.append(sequence)
        self._compare_state()
        return sequence

    def close(self, sequence: int) -> None:
        self.reference.close(sequence)
        self._accepted("close", self.sequences[sequence])
        self.open_sequences.remove(sequence)
        self._compare_state()

    def step(self, batch: TreeBatch) -> list[int]:
        """Compute a batch, compare its output, and return the nodes' handles."""
        expected = self.reference.step(batch)
        handles = expected.nodes.tolist()
        paths = [self.reference.path(handles[i]) for i in batch.logits_for]
        output = self._accepted("step", self.translated(batch))
        self._compare_output(batch, output, expected)
        if self.bits:
            self._compare_bits(batch, output, paths)
        self.nodes.update(zip(handles, output.nodes.tolist(), strict=True))
        self._compare_state()
        return handles

    def chain(self, sequence: int, tokens: Sequence[int]) -> list[int]:
        """Feed a chain, wanting the logits of every node."""
        count = len(tokens)
        return self.step(TreeBatch.of(tokens, sequence, range(-1, count - 1), range(count)))

    def feed(self, sequence: int, tokens: Sequence[int], chunk: int = 64) -> None:
        """Append tokens to a sequence's prefix."""
        for at in range(0, len(tokens), chunk):
            self.commit(sequence, self.step(TreeBatch.chain(tokens[at : at + chunk], sequence)))

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        self.reference.commit(sequence, nodes)
        self._accepted("commit", self.sequences[sequence], self._own(nodes))
        self._compare_state()

    def keep(self, nodes: Sequence[int]) -> None:
        self.reference.keep(nodes)
        self._accepted("keep", self._own(nodes))
        self._compare_state()

    def release(self, nodes: Sequence[int]) -> None:
        self.reference.release(nodes)
        self._accepted("release", self._own(nodes))
        self._compare_state()

    def rejects_step(self, batch: TreeBatch, error: type[EngineError] = EngineError) -> None:
        self._rejects(error, "step", [batch], [self.translated(batch)])

    def rejects_commit(self, sequence: int, nodes: Sequence[int]) -> None:
        self._rejects(EngineError, "commit", [sequence, nodes], [self.sequences[sequence], self._own(nodes)])

    def rejects_keep(self, nodes: Sequence[int]) -> None:
        self._rejects(EngineError, "keep", [nodes], [self._own(nodes)])

    def rejects_release(self, nodes: Sequence[int]) -> None:
        self._rejects(EngineError, "release", [nodes], [self._own(nodes)])

    def rejects_open(self, share: int, length: int | None = None) -> None:
        self._rejects(EngineError, "open", [share, length], [self.sequences[share], length])

    def rejects_closed(self, sequence: int) -> None:
        """Every verb that names the closed sequence is refused."""
        own = self.sequences[sequence]
        self.rejects_open(sequence)
        self.rejects_commit(sequence, [])
        self.rejects_step(TreeBatch.chain([1], sequence))
        self._rejects(EngineError, "close", [sequence], [own])
        self._rejects(EngineError, "length", [sequence], [own])

    def _own(self, nodes: Sequence[int]) -> list[int]:
        """The engine's handles; one that was never given out stays what it is."""
        return [self.nodes.get(node, node) for node in nodes]

    def _accepted(self, verb: str, *arguments: Any) -> Any:
        try:
            return getattr(self.engine, verb)(*arguments)
        except EngineError as raised:
            raise AssertionError(f"{verb} was right, but raised {raised!r}") from raised

    def translated(self, batch: TreeBatch) -> TreeBatch:
        """The batch with the engine's own handles; unknown ones as they are."""

        def parent(entry: int) -> int:
            handle = -2 - entry
            return kept_parent(self.nodes.get(handle, handle)) if entry <= -2 else entry

        return replace(
            batch,
            sequence=np.array([self.sequences.get(s, s) for s in batch.sequence.tolist()], np.int32),
            parent=np.array([parent(entry) for entry in batch.parent.tolist()], np.int32),
        )

    def _rejects(
        self, error: type[EngineError], verb: str, expected: list[Any], arguments: list[Any]
    ) -> None:
        for engine, given in ((self.reference, expected), (self.engine, arguments)):
            raised = _raised(engine, verb, given)
            assert raised is not None, f"{verb} was wrong, but the {engine.spec.name} engine did not raise"
            assert isinstance(raised, OutOfSlots) == (error is OutOfSlots), f"{engine.spec.name}: {raised!r}"
            assert str(raised), "the error says nothing"
        self._compare_state()

    def _compare_state(self) -> None:
        for sequence in self.open_sequences:
            length = self.engine.length(self.sequences[sequence])
            assert length == self.reference.length(sequence), f"length of sequence {sequence}"
        if self.subject.exact_slots:
            assert self.engine.free_slots() == self.reference.free_slots()

    def _compare_output(self, batch: TreeBatch, output: StepOutput, expected: StepOutput) -> None:
        assert output.nodes.dtype == np.int32
        assert output.nodes.shape == (len(batch),)
        assert len(set(output.nodes.tolist())) == len(batch)
        assert (output.nodes >= 0).all()
        assert output.offsets.dtype == np.int64
        np.testing.assert_array_equal(output.offsets, expected.offsets)
        assert output.logits.dtype == output.logsumexp.dtype == np.float32
        np.testing.assert_allclose(output.logits, expected.logits, rtol=0, atol=self.subject.tolerance)
        np.testing.assert_allclose(output.logsumexp, expected.logsumexp, rtol=0, atol=self.subject.tolerance)
        rows = range(len(batch.logits_for))
        self.differences += [float(np.abs(output.row(r) - expected.row(r)).max()) for r in rows]

    def _compare_bits(self, batch: TreeBatch, output: StepOutput, paths: list[tuple[int, ...]]) -> None:
        for r, path in enumerate(paths):
            row = output.row(r)
            ids = ReferenceEngine.candidate_ids(batch, r)
            full = not len(ids)
            if path not in self.seen:
                if full:
                    self.seen[path] = row.copy()
                continue
            np.testing.assert_array_equal(row, self.seen[path] if full else self.seen[path][ids], strict=True)


def _raised(engine: Engine, verb: str, arguments: list[Any]) -> EngineError | None:
    try:
        getattr(engine, verb)(*arguments)
    except EngineError as error:
        return error
    return None
