"""How near a compressed model's predictions are to the dense model's, through the native engine: as they are served."""

import math
from collections.abc import Callable, Iterator
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
    dense: Engine, other: Engine, sequences: NDArray[np.int64], progress: Progress | None = None
) -> tuple[Fidelity, Fidelity]:
    """The dense engine against itself (its own perplexity), and another one against it.

    sequences: int64 [sequences, tokens], tokens at most what both engines take in one step.
    """
    nats = [0.0, 0.0]
    divergence, same, count = 0.0, 0, 0
    for done, tokens in enumerate(sequences):
        if progress is not None:
            progress(done, len(sequences))
        logs = [_log_probabilities(engine, tokens) for engine in (dense, other)]
        for i, each in enumerate(logs):
            nats[i] -= float(each[np.arange(len(each)), tokens[1:]].sum(dtype=np.float64))
        divergence += _divergence(*logs)
        same += int((logs[0].argmax(axis=1) == logs[1].argmax(axis=1)).sum())
        count += len(tokens) - 1
    if progress is not None:
        progress(len(sequences), len(sequences))
    return (
        Fidelity(math.exp(nats[0] / count), 0.0, 1.0, count),
        Fidelity(math.exp(nats[1] / count), max(divergence / count, 0.0), same / count, count),
    )


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
