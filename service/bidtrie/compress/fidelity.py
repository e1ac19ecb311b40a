"""How near a compressed model's predictions are to the dense model's, through the native engine: as they are served."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import TreeBatch

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
#: Told how many sequences of how many are done.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Over all tokens that have one before them in their sequence.

    perplexity: exp of the mean negative log-probability of the text. divergence: mean KL(dense || this), nats a token.
    same_first: share of tokens whose likeliest successor is the dense model's. tokens: how many.
    """

    perplexity: float
    divergence: float
    same_first: float
    tokens: int


def compare(
    dense: Engine,
    others: Mapping[str, Engine],
    sequences: NDArray[np.int64],
    progress: Progress | None = None,
) -> tuple[Fidelity, dict[str, Fidelity]]:
    """The dense engine against itself (for its own perplexity), and the others against it.

    sequences: int64 [sequences, tokens], tokens at most what all engines take in one step.
    """
    sums = {name: _Sums() for name in others}
    own = _Sums()
    for done, tokens in enumerate(sequences):
        if progress is not None:
            progress(done, len(sequences))
        exact = _log_probabilities(dense, tokens)
        own.add(tokens, exact, exact)
        for name, engine in others.items():
            sums[name].add(tokens, exact, _log_probabilities(engine, tokens))
    if progress is not None:
        progress(len(sequences), len(sequences))
    return own.fidelity(), {name: each.fidelity() for name, each in sums.items()}


@dataclass(slots=True)
class _Sums:
    nats: float = 0.0
    divergence: float = 0.0
    same: int = 0
    tokens: int = 0

    def add(self, tokens: NDArray[np.int64], exact: Float32, other: Float32) -> None:
        self.nats -= float(other[np.arange(len(other)), tokens[1:]].sum(dtype=np.float64))
        self.divergence += _divergence(exact, other)
        self.same += int((exact.argmax(axis=1) == other.argmax(axis=1)).sum())
        self.tokens += len(other)

    def fidelity(self) -> Fidelity:
        count = self.tokens
        divergence = max(self.divergence / count, 0.0)
        return Fidelity(math.exp(self.nats / count), divergence, self.same / count, count)


def greedy(engine: Engine, prompt: list[int], count: int, stop: frozenset[int]) -> list[int]:
    """The `count` likeliest tokens after a prompt, one after the other; fewer if one of `stop` comes."""
    sequence = engine.open()
    written: list[int] = []
    try:
        fed = list(prompt)
        while len(written) < count:
            output = engine.step(TreeBatch.chain(fed, sequence, last_logits=True))
            token = int(output.row(0).argmax())
            if token in stop:
                break
            engine.commit(sequence, output.nodes.tolist())
            written.append(token)
            fed = [token]
    finally:
        engine.close(sequence)
    return written


def _log_probabilities(engine: Engine, tokens: NDArray[np.int64]) -> Float32:
    """[tokens - 1, vocabulary], of the successor of each token but the last."""
    count = len(tokens) - 1
    sequence = engine.open()
    try:
        parent = np.arange(-1, count - 1, dtype=np.int32)
        batch = TreeBatch.of(tokens[:-1].astype(np.int32), sequence, parent, np.arange(count, dtype=np.int32))
        logits = engine.step(batch).logits.reshape(count, -1)
    finally:
        engine.close(sequence)
    for row in _rows(count):
        logits[row] -= _log_sum_exp(logits[row])[:, None]
    return logits


def _log_sum_exp(logits: Float32) -> Float32:
    highest: Float32 = logits.max(axis=1, keepdims=True)
    total: Float32 = np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0]
    return total


def _divergence(exact: Float32, other: Float32) -> float:
    return sum(
        float((np.exp(exact[row]) * (exact[row] - other[row])).sum(dtype=np.float64))
        for row in _rows(len(exact))
    )


def _rows(count: int) -> Iterator[slice]:
    """Some rows of a large vocabulary at a time, so that what is made of them stays in the caches."""
    return (slice(first, first + 16) for first in range(0, count, 16))
