"""Losses against plain float64, and their gradients against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bidtrie.tune.example import Choice
from bidtrie.tune.loss import trie_loss, word_loss

RNG = np.random.default_rng(3)
HIDDEN = RNG.standard_normal((6, 8))
HEAD = RNG.standard_normal((20, 8))
CHOICES = (
    Choice(0, np.array([3, 7]), 0),
    Choice(2, np.array([1, 5, 8, 19]), 3),
    Choice(2, np.array([0, 4, 2]), 1),
    Choice(5, np.arange(20), 11),
)


def expected(choices: tuple[Choice, ...], smoothing: float) -> float:
    total = 0.0
    for choice in choices:
        scores = HEAD[choice.candidates] @ HIDDEN[choice.row]
        if choice.beside is not None:
            scores = scores + choice.beside
        share = np.exp(scores) / np.exp(scores).sum()
        target = np.full(len(scores), smoothing / len(scores))
        target[choice.right] += 1 - smoothing
        total -= float((target * np.log(share)).sum())
    return total


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(HIDDEN).float(), torch.from_numpy(HEAD).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trie_loss_is_the_sum_of_cross_entropies(smoothing: float) -> None:
    found = float(trie_loss(*tensors(), CHOICES, smoothing))
    assert found == pytest.approx(expected(CHOICES, smoothing), rel=1e-5)
    # The control: another right answer is told apart.
    other = (Choice(0, CHOICES[0].candidates, 1), *CHOICES[1:])
    assert found != pytest.approx(expected(other, smoothing), rel=1e-3)


def test_what_stands_beside_a_choice_is_added_to_its_logits() -> None:
    beside = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    choices = (CHOICES[0], replace(CHOICES[1], beside=beside), *CHOICES[2:])
    found = float(trie_loss(*tensors(), choices, 0.1))
    assert found == pytest.approx(expected(choices, 0.1), rel=1e-5)
    assert found != pytest.approx(expected(CHOICES, 0.1), rel=1e-3)


def test_trie_loss_stays_finite_for_large_logits() -> None:
    hidden, head = tensors()
    assert torch.isfinite(trie_loss(hidden * 1e3, head, CHOICES))
    assert float(trie_loss(hidden, head, ())) == 0.0


def test_word_loss_is_over_the_whole_vocabulary() -> None:
    rows, words = np.array([1, 4]), np.array([6, 0])
    found = float(word_loss(*tensors(), rows, words))
    whole = tuple(Choice(int(row), np.arange(20), int(word)) for row, word in zip(rows, words, strict=True))
    assert found == pytest.approx(expected(whole, 0.0), rel=1e-5)


def test_gradient_of_the_trie_loss() -> None:
    hidden, head = tensors()
    hidden.requires_grad_()
    trie_loss(hidden, head, CHOICES, 0.1).backward()
    step = 1e-5
    for row, column in ((0, 1), (2, 5), (5, 7), (1, 0)):
        values = []
        for sign in (1, -1):
            moved = HIDDEN.copy()
            moved[row, column] += sign * step
            double = torch.from_numpy(moved)
            total = 0.0
            for choice in CHOICES:
                scores = torch.from_numpy(HEAD)[torch.from_numpy(choice.candidates)] @ double[choice.row]
                share = scores.log_softmax(-1)
                total -= float(0.9 * share[choice.right] + 0.1 * share.mean())
            values.append(total)
        assert float(hidden.grad[row, column]) == pytest.approx(
            (values[0] - values[1]) / (2 * step), abs=1e-4
        )
