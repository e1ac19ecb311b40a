"""What a text may be, as masks over the next token.

Limits count Unicode code points, the ones begun included, so a character that spans tokens is paid for by its first. A
token that would leave a character which no tokens can complete is never allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bidtrie.creative import characters
from bidtrie.creative.numbers import NumberRule
from bidtrie.creative.vocabulary import Mask, Vocabulary, split_utf8

#: ISO 639-1 codes of languages that are written, or also written, in other scripts than Latin.
_OTHER_SCRIPTS = """
ab am ar as av ba be bg bh bn bo bs ce cr cu cv dv dz el fa gu ha he hi hr hy ii iu ja ka kk km kn ko ks ku kv ky
lo mk ml mn mr ms my ne or os pa pi ps ru sa sd sh si sr ta te tg th ti tk tt ug uk ur uz yi zh
"""


@dataclass(frozen=True, slots=True)
class TextState:
    """A text as far as it is written.

    data: its UTF-8 bytes, without leading space; characters: code points begun; pending: bytes of an incomplete
    last character; last: the last complete character; tail: see NumberRule.
    """

    data: bytes = b""
    characters: int = 0
    pending: bytes = b""
    last: str = ""
    tail: str = ""

    @property
    def is_between(self) -> bool:
        """Whether no word is begun: nothing is written yet, or a space is the last character."""
        return not self.pending and self.last in ("", " ")


class Constraint:
    """The rules for all texts of one request: UTF-8, one line, single spaces, an ad's characters, its figures."""

    def __init__(self, vocabulary: Vocabulary, facts: Sequence[str], language: str = "en") -> None:
        """`facts` are the texts whose figures may be used.

        Letters are Latin unless a fact holds others or the language (a BCP 47 tag) is written with others: small models
        slip into other scripts. Then no token with part of a character is allowed either.
        """
        self.vocabulary = vocabulary
        spoken = language.lower().split("-")[0]
        foreign = spoken in _OTHER_SCRIPTS.split() or len(spoken) > 2
        self._is_latin = not foreign and not any(map(characters.is_foreign, "".join(facts)))
        self._numbers = NumberRule(vocabulary, facts)
        self._masks: dict[tuple[bytes, str, bool, str], Mask] = {}

    def can_end(self, state: TextState) -> bool:
        """Whether the text is legal as it stands (whether a word is complete only the model can say)."""
        whole = bool(state.last) and not state.pending
        return whole and characters.can_end(state.last) and self._numbers.is_complete(state.tail)

    def allowed(self, state: TextState) -> Mask:
        """bool [vocabulary], not to be changed: tokens that may follow, whatever their length; stops included."""
        between = state.last if state.is_between else "x"
        key = (state.pending, between if state.last else "", self.can_end(state), state.tail)
        mask = self._masks.get(key)
        if mask is None:
            vocabulary = self.vocabulary
            if state.pending:
                mask = vocabulary.continuing(state.pending, not state.last)
            elif not state.last:
                mask = vocabulary.at_start
            else:
                mask = vocabulary.after_space if state.last == " " else vocabulary.legal
            mask = mask & self._numbers.mask(state.tail)
            if self._is_latin:
                mask &= ~vocabulary.foreign
            if self.can_end(state):
                mask |= vocabulary.stop
            self._masks[key] = mask
        return mask

    def fitting(self, state: TextState, limit: int) -> Mask:
        """bool [vocabulary]: tokens with which the text has at most `limit` characters."""
        room = limit - state.characters
        if state.data:
            return self.vocabulary.characters <= room
        return self.vocabulary.characters - self.vocabulary.leading_space <= room

    def fits(self, state: TextState, token: int, limit: int) -> bool:
        """The same for one token."""
        dropped = not state.data and self.vocabulary.leading_space[token]
        return state.characters + int(self.vocabulary.characters[token]) - int(dropped) <= limit

    def may_continue(self, state: TextState, token: int, limit: int) -> bool:
        """Whether a token that does not stop may follow and has room."""
        allowed = self.allowed(state)[token] and not self.vocabulary.stop[token]
        return bool(allowed) and self.fits(state, token, limit)

    def ends_word(self, state: TextState, token: int) -> bool:
        """Whether a legal text ends at a word boundary if `token` is what the model goes on with."""
        starts = self.vocabulary.starts_word[token]
        closes = self.vocabulary.closes_word[token] and not characters.is_numeric(state.last or " ")
        return bool(starts or closes) and self.can_end(state)

    def advance(self, state: TextState, token: int) -> TextState:
        """The text with an allowed token behind it."""
        data = self.vocabulary.bytes[token]
        if not state.data and data[:1] == b" ":
            data = data[1:]
        split = split_utf8(state.pending + data)
        assert split is not None, "the token is not allowed"
        text, pending = split
        begun = sum(byte & 0xC0 != 0x80 for byte in data)
        tail = self._numbers.tail(state.tail + text + ("\ufffd" if pending else ""))
        return TextState(state.data + data, state.characters + begun, pending, text[-1:] or state.last, tail)
