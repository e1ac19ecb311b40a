"""The numbers rule: figures in a text are figures of the input, whole.

A figure is a longest run of numerals, currency signs and per cent signs, in which a full stop or comma may stand
before a numeral: "20%", "$4.99", "1,000", ".5". A text may hold only figures that the input holds, character by
character, so "20" may not become "20%", "2" or "200". Letters around a figure are not looked at.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from bidtrie.creative import characters
from bidtrie.creative.vocabulary import Mask, Vocabulary

# Figures are matched on a text's image: d numeral, s sign, "." full stop or comma, x anything else.
_FIGURE = re.compile(r"(?:\.(?=d))?[ds]+(?:\.d[ds]*)*")
_LAST = re.compile(r"(?:(?:\.(?=d))?[ds]+(?:\.d[ds]*)*\.?|\.)$")


def _image(text: str) -> str:
    return "".join(
        "." if c in ".," else "d" if characters.is_digit(c) else "s" if characters.is_numeric(c) else "x"
        for c in text
    )


def figures(text: str) -> list[str]:
    """All figures of a text, in order."""
    return [text[match.start() : match.end()] for match in _FIGURE.finditer(_image(text))]


class NumberRule:
    """Which tokens keep a text's figures among those of `facts`.

    The state is the `tail`: the figure that a text ends with and that may still go on, with a separator that may be
    part of it; empty where there is none.
    """

    def __init__(self, vocabulary: Vocabulary, facts: Iterable[str]) -> None:
        self._vocabulary = vocabulary
        self._whole = frozenset(figure for fact in facts for figure in figures(fact))
        self._begun = frozenset(whole[:end] for whole in self._whole for end in range(1, len(whole)))
        self._masks: dict[str, Mask] = {}

    @staticmethod
    def tail(text: str) -> str:
        """The tail of a text (or of an earlier tail with text behind it)."""
        match = _LAST.search(_image(text))
        return text[match.start() :] if match else ""

    def is_complete(self, tail: str) -> bool:
        """Whether something other than a figure's continuation may follow."""
        return not tail or tail in self._whole or (tail[-1] in ".," and self.is_complete(tail[:-1]))

    def is_open(self, text: str) -> bool:
        """Whether all figures of `text` are right, or, at its end, can become so."""
        tail = self.tail(text)
        if not self.is_complete(tail) and tail not in self._begun:
            return False
        return all(figure in self._whole for figure in figures(text[: len(text) - len(tail)]))

    def mask(self, tail: str) -> Mask:
        """bool [vocabulary]: tokens that may follow a text with this tail, as far as figures go."""
        mask = self._masks.get(tail)
        if mask is None:
            vocabulary = self._vocabulary
            mask = np.full(vocabulary.size, self.is_complete(tail), np.bool_)
            mask[self._near(tail)] = False
            if self._whole:
                for token in self._near(tail):
                    mask[token] = self.is_open(tail + vocabulary.text(int(token)))
            self._masks[tail] = mask
        return mask

    def _near(self, tail: str) -> Sequence[int]:
        """Tokens that have to be looked at one by one."""
        vocabulary = self._vocabulary
        near = vocabulary.numeric | vocabulary.separator if tail else vocabulary.numeric
        ids: list[int] = np.flatnonzero(near).tolist()
        return ids
