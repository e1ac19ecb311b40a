"""Perplexity and divergence of engines, against float64."""

import numpy as np
import pytest
from bidtrie.compress.fidelity import compare, greedy
from bidtrie.engine.native import NativeEngine
from bidtrie.models.checkpoint import Checkpoint
from reference.llama import ReferenceLlama
from reference.tiny_models import random_checkpoint

SEQUENCES = np.random.default_rng(0).integers(0, 300, (3, 20))


def engine(checkpoint: Checkpoint) -> NativeEngine:
    return NativeEngine(checkpoint, threads=1, slots=64, max_nodes=32)


def test_against_float64() -> None:
    dense, other = random_checkpoint(0), random_checkpoint(1)
    told: list[tuple[int, int]] = []
    engines = {"other": engine(other), "itself": engine(dense)}
    own, both = compare(engine(dense), engines, SEQUENCES, lambda *each: told.append(each))
    found = both["other"]
    assert both["itself"] == own
    logs = [
        np.concatenate([ReferenceLlama(each).logits(tokens[:-1].tolist()) for tokens in SEQUENCES])
        for each in (dense, other)
    ]
    logs = [each - np.logaddexp.reduce(each, axis=1, keepdims=True) for each in logs]
    following = SEQUENCES[:, 1:].ravel()
    nats = [-each[np.arange(57), following].mean() for each in logs]
    assert own.perplexity == pytest.approx(np.exp(nats[0]), rel=1e-5)
    assert (own.divergence, own.same_first, own.tokens) == (0, 1, 57)
    assert found.perplexity == pytest.approx(np.exp(nats[1]), rel=1e-5)
    expected = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean()
    assert found.divergence == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1
    assert found.same_first == pytest.approx((logs[0].argmax(1) == logs[1].argmax(1)).mean())
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_engine_against_itself() -> None:
    """And slots are given back: many sequences fit into few."""
    dense = engine(random_checkpoint(0))
    own, found = compare(dense, {"itself": dense}, np.tile(SEQUENCES, (5, 1)))
    assert found == {"itself": own}
    assert dense.free_slots() == 64


def test_greedy() -> None:
    checkpoint = random_checkpoint(2)
    reference, prompt = ReferenceLlama(checkpoint), [5, 17, 40]
    expected = list(prompt)
    for _ in range(6):
        expected.append(int(reference.logits(expected)[-1].argmax()))
    ours = engine(checkpoint)
    assert greedy(ours, prompt, 6, frozenset()) == expected[3:]
    assert greedy(ours, prompt, 6, frozenset({expected[5]})) == expected[3:5]
    assert ours.free_slots() == 64
