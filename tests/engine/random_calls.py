"""Random calls of every verb, right and wrong, made on an engine and the reference engine together."""

from collections.abc import Sequence

import numpy as np
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, TreeBatch, kept_parent
from bidtrie.errors import EngineError, OutOfSlots
from engine.twin import Twin
from reference.reference_engine import Node

_VERBS = {"open": 1, "close": 0.5, "step": 4, "commit": 2, "keep": 3, "release": 1}


def make_random_calls(twin: Twin, seed: int, count: int, alphabet: int = 250) -> None:
    """Make `count` calls; tokens are below `alphabet`, so that with a small one paths meet again."""
    caller = _Caller(twin, np.random.default_rng(seed), alphabet)
    for _ in range(count):
        caller.call()


class _Caller:
    """Draws calls that are mostly right; the reference says which are not, and both must refuse those."""

    def __init__(self, twin: Twin, rng: np.random.Generator, alphabet: int) -> None:
        self.twin = twin
        self.rng = rng
        self.alphabet = alphabet
        self.handle_of: dict[Node, int] = {}

    def call(self) -> None:
        verbs = list(_VERBS) if self.twin.open_sequences else ["open"]
        weights = np.array([_VERBS[verb] for verb in verbs])
        getattr(self, self.rng.choice(verbs, p=weights / weights.sum()))()

    def open(self) -> None:
        share = length = None
        if self.twin.open_sequences and self.rng.random() < 0.6:
            share = self._one(self.twin.open_sequences)
            if self.rng.random() < 0.5:
                length = int(self.rng.integers(self.twin.reference.length(share) + 1))
        if len(self.twin.open_sequences) < 5:
            self.twin.open(share, length)

    def close(self) -> None:
        self.twin.close(self._one(self.twin.open_sequences))

    def step(self) -> None:
        batch = self._batch()
        try:
            for handle in self.twin.step(batch):
                self.handle_of[self.twin.reference.nodes[handle]] = handle
        except OutOfSlots:
            self.twin.rejects_step(batch, OutOfSlots)
            self.close()
        except EngineError:
            self.twin.rejects_step(batch)

    def commit(self) -> None:
        """Of a node with all that is above it, which is wrong where that has died."""
        nodes = self.twin.reference.nodes
        if not nodes:
            return
        last = nodes[self._one(list(nodes))]
        path = [self.handle_of[node] for node in last.chain()]
        if self.rng.random() < 0.1:
            path = path[1:] or self._dead()
        try:
            self.twin.commit(last.sequence, path)
        except EngineError:
            self.twin.rejects_commit(last.sequence, path)

    def keep(self) -> None:
        nodes = self._some([h for h, node in self.twin.reference.nodes.items() if not node.kept])
        try:
            self.twin.keep(nodes)
        except EngineError:
            self.twin.rejects_keep(nodes)

    def release(self) -> None:
        nodes = self._some([h for h, node in self.twin.reference.nodes.items() if node.kept])
        try:
            self.twin.release(nodes)
        except EngineError:
            self.twin.rejects_release(nodes)

    def _one(self, values: Sequence[int]) -> int:
        return values[int(self.rng.integers(len(values)))]

    def _some(self, handles: Sequence[int]) -> list[int]:
        """Up to four of the handles, now and then with one that may be dead."""
        some = self.rng.permutation(np.asarray(handles, np.int64))[: int(self.rng.integers(1, 5))].tolist()
        return some + self._dead() if self.rng.random() < 0.2 else some

    def _dead(self) -> list[int]:
        """A dead handle, if there is one: rather of a node that a live one still needs than of any."""
        alive = self.twin.reference.nodes
        needed = {self.handle_of[above] for node in alive.values() for above in node.chain()}
        dead = sorted(needed - alive.keys()) or [handle for handle in self.twin.nodes if handle not in alive]
        return [self._one(dead)] if dead else []

    def _batch(self) -> TreeBatch:
        rng, twin = self.rng, self.twin
        count = int(rng.integers(1, twin.reference.spec.max_nodes + 2))
        kept = [handle for handle, node in twin.reference.nodes.items() if node.kept]
        sequences: list[int] = []
        parents: list[int] = []
        for i in range(count):
            parent = self._one(
                [PREFIX_END, *(kept_parent(handle) for handle in kept), *range(max(0, i - 4), i)]
            )
            if parent == PREFIX_END:
                sequences.append(self._one(twin.open_sequences))
            elif parent >= 0:
                sequences.append(sequences[parent])
            else:
                sequences.append(twin.reference.nodes[-2 - parent].sequence)
            parents.append(parent)
        if rng.random() < 0.05:
            parents[-1] = kept_parent(self._one([*self._dead(), *twin.nodes, 1]))
        rows = rng.integers(0, count, int(rng.integers(count + 1)))
        candidates = None
        if rng.random() < 0.5:
            vocabulary = twin.reference.spec.vocab_size
            candidates = Candidates.of([rng.integers(0, vocabulary, int(rng.integers(5))) for _ in rows])
        tokens = rng.integers(0, self.alphabet, count)
        return TreeBatch.of(tokens, sequences, parents, rows, candidates, rng.random(len(rows)) < 0.3)
