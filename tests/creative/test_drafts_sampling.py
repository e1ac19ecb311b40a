"""Drawn texts follow the model's distribution whatever was fed ahead: chi-square over 100,000 texts, and controls.

The distribution of whole texts is worked out by hand, in float64, from a table of logits. Drafts are made to measure:
illegal tokens, likely ones, none, differing from text to text.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from bidtrie.creative.candidate import Candidate, Computed
from bidtrie.creative.constraint import Constraint
from bidtrie.creative.sampling import Sampler
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.requests import Sampling
from creative.fakes import EOS, FakeEngine, FakeTokenizer

TEXTS = 100_000
TOKENIZER = FakeTokenizer([b"aa", b" bb", b" cc", b"[", b"7"])
VOCABULARY = Vocabulary(TOKENIZER)  # type: ignore[arg-type]
SIZE = VOCABULARY.size
#: What a text may hold: markup is never allowed, and no fact has a figure.
LEGAL = [TOKENIZER.id_of(token) for token in (b"aa", b" bb", b" cc")]
MARKUP, FIGURE = TOKENIZER.id_of(b"["), TOKENIZER.id_of(b"7")
RULE = Constraint(VOCABULARY, ["a lamp"])
SAMPLING = Sampling(0.8, 0.95, 0, seed=5)
PENALTY = 1.2
LENGTH = 3

Path = tuple[int, ...]


def table() -> dict[Path, np.ndarray]:
    """Logits by path; illegal tokens are likely, and a text of three tokens always ends."""
    rng = np.random.default_rng(2)
    rows = {}
    for length in range(LENGTH + 1):
        for path in itertools.product(range(1, SIZE), repeat=length):
            row = rng.normal(0, 1.0, SIZE)
            row[[MARKUP, FIGURE]] += 1.5
            if length == LENGTH:
                row[1:] = -np.inf
            rows[path] = row.astype(np.float32)
    return rows


ROWS = table()


def exact(path: Path) -> dict[int, float]:
    """The distribution of the next token: penalty, mask, temperature, top-p, spelled out."""
    logits = ROWS[path].astype(np.float64)
    for token in set(path):
        logits[token] = logits[token] * PENALTY if logits[token] < 0 else logits[token] / PENALTY
    allowed = [*LEGAL, *([EOS] if path else [])]
    weights = {t: math.exp(logits[t] / SAMPLING.temperature) for t in allowed if logits[t] > -math.inf}
    total = sum(weights.values())
    ordered = sorted(weights, key=lambda t: weights[t])
    dropped = 0.0
    while len(ordered) > 1 and dropped + weights[ordered[0]] / total <= 1 - SAMPLING.top_p:
        dropped += weights[ordered.pop(0)] / total
    left = sum(weights[t] for t in ordered)
    return {t: weights[t] / left for t in ordered}


def joint() -> dict[Path, float]:
    """The probability of every text."""
    found: dict[Path, float] = {}
    waiting: list[tuple[Path, float]] = [((), 1.0)]
    while waiting:
        path, chance = waiting.pop()
        for token, share in exact(path).items():
            if token == EOS:
                found[path] = chance * share
            else:
                waiting.append(((*path, token), chance * share))
    assert abs(sum(found.values()) - 1) < 1e-12
    return found


JOINT = joint()


def draft(path: Path, kind: int) -> Computed:
    """A computed node for the path's last token, with a draft below: another for each of the kinds."""
    below = {}
    if len(path) < LENGTH:
        wanted = [(), (FIGURE,), (MARKUP, LEGAL[1]), (LEGAL[2],), (LEGAL[0], FIGURE, LEGAL[2]), tuple(LEGAL)][
            kind
        ]
        below = {token: draft((*path, token), kind) for token in wanted}
    row = ROWS[path]
    top = float(row.max())
    return Computed(0, row, top + math.log(np.exp(row - top).sum()), below=below)


KINDS = 6
DRAFTS = {(path, kind): draft(path, kind) for path in ROWS if path for kind in range(KINDS)}


class _Engine(FakeEngine):
    """Computes nothing: every answer comes from the table."""

    def __init__(self) -> None:
        super().__init__(SIZE, lambda tokens: ROWS[()])
        self.sequence = self.open()

    def keep(self, nodes: object) -> None:
        pass

    def release(self, nodes: object) -> None:
        pass

    def commit(self, sequence: int, nodes: object) -> None:
        pass


def texts(make: type[Candidate], count: int) -> Counter[Path]:
    """Texts by their tokens."""
    engine = _Engine()
    found: Counter[Path] = Counter()
    first = ROWS[()]
    for number in range(count):
        candidate = make(
            engine,
            engine.sequence,
            RULE,
            Sampler(SAMPLING, "slot", number, PENALTY),
            100,
            row=first,
            logsumexp=0.0,
        )
        while candidate.choose() is not None:
            candidate.feed(DRAFTS[tuple(candidate.root.path), number % KINDS])
        found[tuple(candidate.root.path)] += 1
    return found


def p_value(counts: Counter[Path], wanted: dict[Path, float]) -> float:
    """Pearson's chi-square test; 0 if the impossible was seen. Cells are large enough: at least 5 are expected."""
    import torch

    total = sum(counts.values())
    if set(counts) - set(wanted):
        return 0.0
    rare = {cell for cell, chance in wanted.items() if chance * total < 5}
    observed = [counts[cell] for cell in wanted if cell not in rare]
    expected = [wanted[cell] * total for cell in wanted if cell not in rare]
    if rare:
        observed.append(sum(counts[cell] for cell in rare))
        expected.append(sum(wanted[cell] for cell in rare) * total)
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    half = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def at(position: int) -> Callable[[Path], Path]:
    """The token at a position, the end included, as a path of one; empty where the text had ended before."""
    return lambda path: (*path, EOS)[position : position + 1]


def by(cell: Callable[[Path], Path], of: dict[Path, float] | Counter[Path]) -> Counter[Path]:
    sums: Counter[Path] = Counter()
    for path, value in of.items():
        sums[cell(path)] += value  # type: ignore[assignment]
    return sums


def p_values(found: Counter[Path]) -> list[float]:
    """Of whole texts, and of each position by itself."""
    cells: list[Callable[[Path], Path]] = [lambda path: path, *(at(i) for i in range(LENGTH + 1))]
    return [p_value(by(cell, found), dict(by(cell, JOINT))) for cell in cells]


class AcceptsTheImpossible(Candidate):
    """Wrong: where the draw was not fed ahead, a draft token is followed all the same, of probability 0 too."""

    def _draw(self) -> int | None:
        token, below = super()._draw(), self._here.below
        if below and token is not None and token not in below and not VOCABULARY.stop[token]:
            return next(iter(below))
        return token


class ComparesBeforeMasks(Candidate):
    """Wrong: the draw that is compared with the draft is made before the masks, and the masked one comes after."""

    def _draw(self) -> int | None:
        here = self._here
        token = self._sampler.pick(here.row, np.ones(SIZE, np.bool_), here.path, 0)
        return token if token in here.below and token in LEGAL else super()._draw()


def test_drawn_texts_follow_the_models_distribution() -> None:
    found = texts(Candidate, TEXTS)
    assert sum(found.values()) == TEXTS
    assert len(JOINT) > 20
    assert min(p_values(found)) > 0.01


@pytest.mark.parametrize("wrong", [AcceptsTheImpossible, ComparesBeforeMasks])
def test_wrong_verifiers_are_caught_by_the_same_test(wrong: type[Candidate]) -> None:
    assert p_values(texts(wrong, TEXTS // 10))[0] < 1e-6


def test_what_is_fed_ahead_changes_no_single_text() -> None:
    """Stronger than a distribution: the same candidate draws the same text with every kind of draft."""

    def one(number: int, kind: int) -> Path:
        engine = _Engine()
        candidate = Candidate(
            engine, engine.sequence, RULE, Sampler(SAMPLING, "slot", number), 100, row=ROWS[()], logsumexp=0.0
        )
        while candidate.choose() is not None:
            candidate.feed(DRAFTS[tuple(candidate.root.path), kind])
        return tuple(candidate.root.path)

    drawn = [{one(number, kind) for kind in range(KINDS)} for number in range(300)]
    assert all(len(each) == 1 for each in drawn)
    assert len(set.union(*drawn)) > 10
