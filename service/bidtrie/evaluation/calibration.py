"""Probabilities from scores, and how well calibrated they are.

A bidder multiplies probabilities, so that it matters whether of the answers given with 70% about 70% are right. The
probability of a segment is the softmax of its score over a temperature, over the segments that the service returned
(as many as it may); a tier-1 topic's is the sum over its segments. The choice is the service's first answer, whatever
the temperature.

What is not returned counts for nothing, as for a bidder who gets no more: of 704 segments the best 50 can hold half of
the whole softmax or less, so that a temperature holds for this many segments, and makes up for the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from bidtrie.evaluation.minimum import minimum
from bidtrie.evaluation.reliability import (
    Bool,
    Float64,
    calibration_error,
    equal_mass,
    equal_width,
    error_if_calibrated,
)
from bidtrie.requests import ScoredSegment

_COLDEST, _HOTTEST = 0.05, 50.0
#: No probability is taken for nearer to 0 or 1: one certain answer that is wrong would decide everything.
_LEAST = 1e-6


class Choices:
    """The first answers to n pages with the scores of all k that were returned.

    scores  float64 [n, k], natural-log units; -inf where fewer came back
    same    bool [n, k], the segments whose probabilities make up that of the choice
    right   bool [n], whether the choice was right
    """

    def __init__(self, scores: Float64, same: Bool, right: Bool) -> None:
        self._scores, self._same, self.right = scores, same, right

    @classmethod
    def of(
        cls, answers: Sequence[Sequence[ScoredSegment]], right: Sequence[bool], *, tier1: bool
    ) -> "Choices":
        """The choices of a tier-1 topic, or of a path. Pages that got no answer are left out."""
        given = [(answer, hit) for answer, hit in zip(answers, right, strict=True) if answer]
        shape = len(given), max((len(answer) for answer, _ in given), default=0)
        scores, same = np.full(shape, -np.inf), np.zeros(shape, np.bool_)
        for row, (answer, _) in enumerate(given):
            scores[row, : len(answer)] = [segment.score for segment in answer]
            first = answer[0].path
            same[row, : len(answer)] = [
                segment.path[0] == first[0] if tier1 else segment.path == first for segment in answer
            ]
        return cls(scores, same, np.array([hit for _, hit in given], np.bool_))

    def __len__(self) -> int:
        return len(self.right)

    def part(self, half: int) -> "Choices":
        """Every second page, from page 0 or 1 on."""
        return Choices(self._scores[half::2], self._same[half::2], self.right[half::2])

    def probabilities(self, temperature: float = 1.0) -> Float64:
        """What each choice's probability is: float64 [n]."""
        scaled = self._scores / temperature
        mass = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        chosen = np.where(self._same, mass, 0.0).sum(axis=1)
        result: Float64 = np.minimum(chosen / mass.sum(axis=1), 1.0)
        return result

    def loss(self, temperature: float) -> float:
        """The mean negative log-likelihood, in nats, of the choices' being right or wrong."""
        p = np.clip(self.probabilities(temperature), _LEAST, 1 - _LEAST)
        return -float(np.where(self.right, np.log(p), np.log1p(-p)).mean())


def fit_temperature(choices: Choices) -> float:
    """The temperature between 0.05 and 50 that makes what came true likeliest (temperature scaling, Guo et al. 2017).

    By whether the choice was right rather than by the right segment's probability: a page may have several right
    segments, or none among those returned.
    """
    return exp(minimum(lambda x: choices.loss(exp(x)), log(_COLDEST), log(_HOTTEST)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities of n choices, as they come (temperature 1) and scaled, with what came true.

    unscaled, scaled  float64 [n]; the scaled ones with the temperature fitted on the other half of the pages, so that
                      no page is judged by what was learnt of it; even pages first, then odd ones
    halves            the temperatures fitted on the odd and on the even pages
    temperature       the one fitted on all
    """

    unscaled: Float64
    scaled: Float64
    right: Bool
    halves: tuple[float, float]
    temperature: float

    @classmethod
    def of(cls, choices: Choices) -> "Calibration | None":
        """None where there are fewer than two choices: nothing to fit one half on."""
        if len(choices) < 2:
            return None
        even, odd = choices.part(0), choices.part(1)
        for_even, for_odd = fit_temperature(odd), fit_temperature(even)
        return cls(
            np.concatenate([even.probabilities(), odd.probabilities()]),
            np.concatenate([even.probabilities(for_even), odd.probabilities(for_odd)]),
            np.concatenate([even.right, odd.right]),
            (for_even, for_odd),
            fit_temperature(choices),
        )

    def to_json(self) -> dict[str, float | int | list[float]]:
        """Errors between 0 and 1, over all pages."""
        return {
            "ece": calibration_error(equal_width(self.scaled, self.right)),
            "ece_unscaled": calibration_error(equal_width(self.unscaled, self.right)),
            "ece_equal_mass": calibration_error(equal_mass(self.scaled, self.right)),
            "ece_equal_mass_unscaled": calibration_error(equal_mass(self.unscaled, self.right)),
            "ece_if_calibrated": error_if_calibrated(self.scaled),
            "temperature": self.temperature,
            "temperature_of_halves": list(self.halves),
            "right": float(self.right.mean()),
            "mean_probability": float(self.scaled.mean()),
            "mean_probability_unscaled": float(self.unscaled.mean()),
            "n": len(self.right),
        }
