"""Draws against the exact distribution, and against transformers' own warpers."""

import math

import numpy as np
import pytest
from bidtrie.creative.sampling import Sampler, distribution, draw, penalized, stop_log_probability
from bidtrie.requests import Sampling

DRAWS = 20_000


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def expected(logits: np.ndarray, mask: np.ndarray, temperature: float, k: int, p: float) -> np.ndarray:
    """The same by transformers' processors, in float64."""
    import torch
    from transformers.generation.logits_process import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    scores = torch.from_numpy(np.where(mask, logits, -np.inf).astype(np.float64))[None]
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if k:
        scores = TopKLogitsWarper(k)(None, scores)
    if p < 1:
        scores = TopPLogitsWarper(p)(None, scores)
    return torch.softmax(scores, -1)[0].numpy()


SETTINGS = [
    Sampling(1.0, 1.0, 0, 1),
    Sampling(0.7, 1.0, 0, 2),
    Sampling(1.5, 0.8, 0, 3),
    Sampling(1.0, 1.0, 4, 4),
    Sampling(0.9, 0.6, 6, 5),
    Sampling(1.0, 0.01, 0, 6),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_distribution_equals_transformers(sampling: Sampling) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        logits = rng.normal(0, 2, 40).astype(np.float32)
        mask = rng.random(40) < 0.7
        ids, weights = distribution(logits, mask, sampling)
        found = np.zeros(40)
        found[ids] = weights
        wanted = expected(logits, mask, sampling.temperature, sampling.top_k, sampling.top_p)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic in standard deviations over its mean; infinite if the impossible was drawn."""
    possible = probabilities > 0
    if counts[~possible].any():
        return math.inf
    mean = probabilities[possible] * counts.sum()
    freedom = int(possible.sum()) - 1
    if not freedom:
        return 0.0
    return float((((counts[possible] - mean) ** 2 / mean).sum() - freedom) / math.sqrt(2 * freedom))


def counts(sampling: Sampling, logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    found = np.zeros(len(logits))
    for candidate in range(DRAWS):
        found[Sampler(sampling, "headline", candidate).pick(logits, mask, ())] += 1
    return found


@pytest.mark.parametrize("sampling", [SETTINGS[1], SETTINGS[4]], ids=str)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    rng = np.random.default_rng(1)
    logits, mask = rng.normal(0, 1.5, 12).astype(np.float32), np.arange(12) % 4 != 3
    found = counts(sampling, logits, mask)
    wanted = expected(logits, mask, sampling.temperature, sampling.top_k, sampling.top_p)
    assert chi_square(found, wanted) < 4
    # Wrong samplers that the test must tell apart: no mask, no temperature, top-p before top-k.
    assert chi_square(found, expected(logits, mask, 1.0, sampling.top_k, sampling.top_p)) > 4
    assert chi_square(found, softmax(logits.astype(np.float64) / sampling.temperature)) > 4


def test_positions_candidates_slots_and_seeds_are_independent() -> None:
    draws = [
        Sampler(Sampling(1.0, seed=seed), slot, candidate).uniform(position, attempt)
        for seed in (0, 1, 2**64 - 1)
        for slot in ("a", "b")
        for candidate in range(3)
        for position in range(5)
        for attempt in range(3)
    ]
    assert len(set(draws)) == len(draws)
    again = Sampler(Sampling(1.0, seed=0), "a", 0).uniform(0, 0)
    assert again == draws[0]


def test_probability_zero_is_never_drawn() -> None:
    weights = np.array([0.0, 0.3, 0.0, 0.7, 0.0])
    edges = [0.0, np.nextafter(0.3, 0), 0.3, np.nextafter(1, 0)]
    assert [draw(weights, u) for u in edges] == [1, 1, 3, 3]
    assert draw(np.array([0.1] * 10 + [0.0]), np.nextafter(1, 0)) == 9
    logits = np.array([-np.inf, 0, -np.inf], np.float32)
    assert Sampler(Sampling(1.0, seed=0), "a", 0).pick(logits, np.array([True, True, True]), ()) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_to_draw(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature, seed=0), "a", 0)
    logits = np.array([-np.inf, 1.0], np.float32)
    assert sampler.pick(logits, np.array([True, False]), ()) is None
    assert sampler.pick(logits, np.array([False, False]), ()) is None


def test_repetition_penalty_equals_transformers() -> None:
    import torch
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(0).normal(0, 2, 20).astype(np.float32)
    seen = [3, 7, 7, 11]
    wanted = RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor([seen]), torch.from_numpy(logits.copy())[None]
    )
    np.testing.assert_allclose(penalized(logits, seen, 1.3), wanted[0].numpy(), rtol=1e-6)
    assert penalized(logits, seen, 1.0) is logits


def test_probability_of_stopping_is_that_of_all_stop_tokens() -> None:
    logits = np.random.default_rng(0).normal(0, 2, 20).astype(np.float32)
    total = float(np.log(np.exp(logits.astype(np.float64)).sum()))
    found = stop_log_probability(logits, total, np.array([2, 5]))
    assert found == pytest.approx(math.log(softmax(logits.astype(np.float64))[[2, 5]].sum()), abs=1e-6)
    assert stop_log_probability(np.full(3, -np.inf, np.float32), 0.0, np.array([1])) == -math.inf
