"""Engines that are wrong in one way each: the conformance suite must tell every one of them from a right one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from engine import conformance
from engine.conformance import Check
from engine.subjects import native_subject, reference_subject
from engine.twin import Subject
from reference.llama import Float64
from reference.reference_engine import Node, ReferenceEngine


class MaskOff(ReferenceEngine):
    """A node sees every earlier node of its sequence in the batch, ancestor or not."""

    def _sees(self, node: Node, batch: Sequence[Node]) -> tuple[list[int], list[int]]:
        chain = node.chain()
        earlier = batch[: next(i for i, n in enumerate(batch) if n is node)]
        others = [n for n in earlier if n.sequence == node.sequence and n not in chain]
        nodes = [*self._prefixes[node.sequence], *others, *chain]
        base = len(self._prefixes[node.sequence])
        positions = [*range(base), *(base + len(n.chain()) - 1 for n in nodes[base:])]
        return [n.token for n in nodes], positions


class WrongPositions(ReferenceEngine):
    """A node's position is its index in the batch, not its depth."""

    def _sees(self, node: Node, batch: Sequence[Node]) -> tuple[list[int], list[int]]:
        tokens, positions = super()._sees(node, batch)
        index = {id(n): i for i, n in enumerate(batch)}
        base = len(self._prefixes[node.sequence])
        for depth, n in enumerate(node.chain()):
            positions[base + depth] = base + index.get(id(n), depth)
        return tokens, positions


class MissingCommit(ReferenceEngine):
    """A committed path counts, but its KV never joins the prefix."""

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        path = [self._node(handle) for handle in nodes]
        super().commit(sequence, nodes)
        for node in path:
            node.token = -1

    def _sees(self, node: Node, batch: Sequence[Node]) -> tuple[list[int], list[int]]:
        seen = [pair for pair in zip(*super()._sees(node, batch), strict=True) if pair[0] >= 0]
        return [token for token, _ in seen], [position for _, position in seen]


class StaleHandles(ReferenceEngine):
    """A handle is good for ever: what has died is used silently."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self._ever: dict[int, Node] = {}

    def step(self, batch: TreeBatch) -> StepOutput:
        self._ever |= self.nodes
        output = super().step(batch)
        self._ever |= self.nodes
        return output

    def _node(self, handle: int) -> Node:
        return self._ever[handle] if handle in self._ever else super()._node(handle)

    def _kept(self, handle: int) -> Node:
        return self._node(handle)


class OverwrittenKeep(ReferenceEngine):
    """Kept nodes' slots are given to the nodes of later steps all the same."""

    def step(self, batch: TreeBatch) -> StepOutput:
        kept = [node for node in self.nodes.values() if node.kept]
        output = super().step(batch)
        for node, token in zip(kept, batch.tokens.tolist(), strict=False):
            node.token = token
        return output


class ForgottenAncestors(ReferenceEngine):
    """What a kept node needs does not stay: unkept ancestors are lost at the next step."""

    def step(self, batch: TreeBatch) -> StepOutput:
        for node in self.nodes.values():
            if node.parent is not None and not node.parent.kept:
                node.parent = None
        return super().step(batch)


class LivingAncestors(ReferenceEngine):
    """Handles of unkept nodes live on where a kept node needs what they stand for."""

    def step(self, batch: TreeBatch) -> StepOutput:
        before = dict(self.nodes)
        needed = {above for node in before.values() if node.kept for above in node.chain()}
        output = super().step(batch)
        self.nodes |= {handle: node for handle, node in before.items() if node in needed}
        return output


class SharesAll(ReferenceEngine):
    """`open` ignores `length`."""

    def open(self, share: int | None = None, length: int | None = None) -> int:
        return super().open(share)


class SharedListOfTokens(ReferenceEngine):
    """A sequence that shares a whole prefix grows with its origin."""

    def open(self, share: int | None = None, length: int | None = None) -> int:
        sequence = super().open(share, length)
        if share is not None and length is None:
            self._prefixes[sequence] = self._prefixes[share]
        return sequence


class CommitDropsNothing(ReferenceEngine):
    """Siblings of a committed path live on."""

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        before = dict(self.nodes)
        super().commit(sequence, nodes)
        self.nodes = {h: node for h, node in before.items() if h not in nodes}


class CommitDropsAll(ReferenceEngine):
    """Nodes below a committed path die with the rest."""

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        super().commit(sequence, nodes)
        self.nodes = {h: node for h, node in self.nodes.items() if node.sequence != sequence}


class FailedStepEndsLives(ReferenceEngine):
    """A step that raises has already ended the life of the last step's nodes."""

    def step(self, batch: TreeBatch) -> StepOutput:
        self.nodes, before = {h: node for h, node in self.nodes.items() if node.kept}, self.nodes
        self._place(batch)
        self.nodes = before
        return super().step(batch)


class HalfAKeep(ReferenceEngine):
    """`keep` stops at the first wrong handle, with those before it kept."""

    def keep(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            super().keep([node])


class SortedCandidates(ReferenceEngine):
    """Candidate rows come in the order of the ids."""

    @staticmethod
    def candidate_ids(batch: TreeBatch, row: int) -> np.ndarray:
        return np.sort(ReferenceEngine.candidate_ids(batch, row))


class LeakedSlots(ReferenceEngine):
    """Released nodes keep their slots."""

    _leaked = 0

    def release(self, nodes: Sequence[int]) -> None:
        super().release(nodes)
        self._leaked += len(nodes)

    def free_slots(self) -> int:
        return super().free_slots() - self._leaked


class NoSlotLimit(ReferenceEngine):
    """Never out of slots."""

    def free_slots(self) -> int:
        return max(super().free_slots(), self.spec.max_nodes)


class BatchDependent(ReferenceEngine):
    """Logits move by a little with the size of the batch, far within the tolerance."""

    def _logits(self, node: Node, batch: Sequence[Node]) -> Float64:
        return super()._logits(node, batch) * (1 + 1e-7 * (len(batch) % 3))


CONTROLS: list[tuple[type[ReferenceEngine], Check]] = [
    (MaskOff, conformance.tree),
    (MaskOff, conformance.several_sequences),
    (WrongPositions, conformance.tree),
    (WrongPositions, conformance.commit_a_branch),
    (MissingCommit, conformance.decoding),
    (MissingCommit, conformance.commit_kept_nodes),
    (StaleHandles, conformance.handles_die),
    (StaleHandles, conformance.commit_drops_the_rest),
    (OverwrittenKeep, conformance.kept_nodes_over_several_steps),
    (ForgottenAncestors, conformance.keep_without_parents),
    (LivingAncestors, conformance.keep_without_parents),
    (SharesAll, conformance.shared_prefix),
    (SharedListOfTokens, conformance.sharing_sees_commits_only),
    (CommitDropsNothing, conformance.commit_drops_the_rest),
    (CommitDropsAll, conformance.commit_keeps_descendants),
    (FailedStepEndsLives, conformance.a_failed_step_ends_no_life),
    (HalfAKeep, conformance.wrong_lives),
    (SortedCandidates, conformance.candidates),
    (LeakedSlots, conformance.slots_are_counted),
    (NoSlotLimit, conformance.out_of_slots),
    (BatchDependent, conformance.same_bits_in_any_company),
    (BatchDependent, conformance.same_bits_however_fed),
]


def subject_of(broken: type[ReferenceEngine]) -> Subject:
    right = reference_subject()

    def make(*, slots: int, max_nodes: int, threads: int) -> ReferenceEngine:
        return broken(right.checkpoint, slots=slots, max_nodes=max_nodes)

    return replace(right, make=make)


@pytest.mark.parametrize(
    ("broken", "check"), CONTROLS, ids=[f"{broken.__name__}-{check.__name__}" for broken, check in CONTROLS]
)
def test_a_broken_engine_fails(broken: type[ReferenceEngine], check: Check) -> None:
    with pytest.raises(AssertionError):
        check(subject_of(broken))


def test_rounding_that_is_not_done_is_seen() -> None:
    """Quantized models are compared loosely row by row, but not so loosely that other arithmetic passes."""
    right = native_subject("q4_1", kv="float32")

    def make(*, slots: int, max_nodes: int, threads: int) -> ReferenceEngine:
        return ReferenceEngine(right.checkpoint, slots=slots, max_nodes=max_nodes)

    with pytest.raises(AssertionError, match="hardly a row"):
        conformance.tree(replace(right, make=make))


@pytest.mark.parametrize("broken", dict(CONTROLS), ids=lambda broken: broken.__name__)
def test_random_calls_find_it_too(broken: type[ReferenceEngine]) -> None:
    """Random calls alone tell every broken engine, so they cover the verbs; only bits need a check of their own."""
    check = conformance.same_bits_in_random_calls if broken is BatchDependent else conformance.random_calls
    with pytest.raises(AssertionError):
        check(subject_of(broken))
