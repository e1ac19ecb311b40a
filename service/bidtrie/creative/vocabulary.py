"""What each token of a vocabulary does to a text: tables made once a model, as arrays over the token ids."""

import codecs
import re

import numpy as np
from numpy.typing import NDArray

from bidtrie.creative import characters
from bidtrie.models.tokenizer import Tokenizer

Mask = NDArray[np.bool_]

#: Tokens that end a turn or a document in models whose tokenizer does not name them as such.
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")

#: Most tokens of most vocabularies: they need no closer look.
_PLAIN = re.compile(rb" ?[A-Za-z]+")


def split_utf8(data: bytes) -> tuple[str, bytes] | None:
    """The complete characters of `data` and the bytes of one that is begun; None: no text starts like this."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return None
    return text, data[used:]


class Vocabulary:
    """Tables over `size` token ids (the model's vocabulary, which may be padded beyond the tokenizer's).

    characters     int16, Unicode code points that the token begins
    leading_space  it begins with a space
    legal          it may follow any complete character but a space
    after_space    it may follow a space
    at_start       it may be the first token (one leading space is then dropped)
    starts_word    before it a word is complete: it begins with a space, or a Han or Kana character
    closes_word    it begins with punctuation before which a word is complete, unless that is a figure
    numeric        it holds characters of figures
    separator      it begins with a full stop or a comma, which may stand inside a figure
    foreign        it holds letters that are not Latin, or part of a character
    stop           the model ends the text with it: end of text or turn, or a line break
    """

    def __init__(self, tokenizer: Tokenizer, size: int | None = None) -> None:
        size = tokenizer.vocab_size if size is None else size
        self.size = size
        self.bytes = [tokenizer.token_bytes(i) for i in range(size)]
        self.characters = np.zeros(size, np.int16)
        tables = [np.zeros(size, np.bool_) for _ in range(10)]
        self.leading_space, self.legal, self.after_space, self.at_start = tables[:4]
        self.starts_word, self.closes_word, self.numeric, self.separator = tables[4:8]
        self.foreign, self.stop = tables[8:]
        self._continuing: list[int] = []
        self._within: list[bytes] = []
        self._pending: dict[tuple[bytes, bool], Mask] = {}
        self._completable: dict[tuple[bytes, bool], bool] = {}

        ends = {tokenizer.token_id(text) for text in _END_TOKENS} - {None}
        for token in {*tokenizer.eos_ids, *ends}:
            if token is not None and token < size:
                self.stop[token] = True
        plain: list[int] = []
        split: list[int] = []
        for token, data in enumerate(self.bytes):
            if _PLAIN.fullmatch(data):
                plain.append(token)
            elif data and not self.stop[token] and self._read(token, data):
                split.append(token)
        self.characters[plain] = [len(self.bytes[token]) for token in plain]
        self.leading_space[plain] = [self.bytes[token][0] == 0x20 for token in plain]
        self.legal[plain] = self.at_start[plain] = True
        self.legal &= ~self.stop
        self.at_start &= ~self.stop
        self.after_space |= self.legal & ~self.leading_space
        self.starts_word |= self.leading_space
        # Whether a token that ends inside a character is legal depends on tokens that complete it: all must be known.
        for token in split:
            self._check_end(token)
        self.stop_ids = np.flatnonzero(self.stop)

    def _read(self, token: int, data: bytes) -> bool:
        """Fill in a token's row of the tables; whether it is legal and ends inside a character."""
        self.characters[token] = sum(byte & 0xC0 != 0x80 for byte in data)
        self.foreign[token] = True
        if data[0] & 0xC0 == 0x80:
            self._continuing.append(token)
            if not self.characters[token]:
                self._within.append(data)
            return False
        split = split_utf8(data)
        if split is None:
            return False
        text, rest = split
        if text.isspace() and not rest and ("\n" in text or "\r" in text):
            self.stop[token] = True
            return False
        if not all(map(characters.is_writable, text)) or "  " in text:
            return False
        self.legal[token] = True
        self.leading_space[token] = text.startswith(" ")
        first = text.removeprefix(" ")[:1]
        self.at_start[token] = characters.can_begin(first) if first else bool(rest)
        if text:
            self.starts_word[token] = characters.starts_word(text[0])
            self.closes_word[token] = characters.closes_word(text[0])
            self.separator[token] = text[0] in ".,"
            self.numeric[token] = any(map(characters.is_numeric, text))
        self.foreign[token] = bool(rest) or any(map(characters.is_foreign, text))
        return bool(rest)

    def _check_end(self, token: int) -> None:
        split = split_utf8(self.bytes[token])
        assert split is not None
        text, rest = split
        self.at_start[token] &= self._can_complete(rest, text.removeprefix(" ") == "")
        self.legal[token] = self._can_complete(rest, False)
        self.after_space[token] &= self.legal[token]

    def text(self, token: int) -> str:
        """The token's characters; U+FFFD stands for each one that other tokens share."""
        return self.bytes[token].decode("utf-8", "replace")

    def continuing(self, pending: bytes, at_start: bool) -> Mask:
        """Tokens that may follow the first bytes `pending` of a character, which is the text's first if `at_start`.

        Characters put together from several tokens are never part of figures, so that rules on figures may look at
        whole tokens.
        """
        key = (pending, at_start)
        mask = self._pending.get(key)
        if mask is None:
            mask = np.zeros(self.size, np.bool_)
            for token in self._continuing:
                mask[token] = self._may_continue(pending, self.bytes[token], at_start)
            self._pending[key] = mask
        return mask

    def _may_continue(self, pending: bytes, data: bytes, at_start: bool) -> bool:
        split = split_utf8(pending + data)
        if split is None:
            return False
        text, rest = split
        if not text:
            return self._can_complete(rest, at_start)
        if (
            not all(map(characters.is_writable, text))
            or any(map(characters.is_numeric, text))
            or "  " in text
        ):
            return False
        return (not at_start or characters.can_begin(text[0])) and (
            not rest or self._can_complete(rest, False)
        )

    def _can_complete(self, pending: bytes, at_start: bool) -> bool:
        """Whether some tokens complete the character `pending` and nothing more: no room is needed for that."""
        if pending[0] > 0xF0:  # U+40000 and above: nothing but private and unassigned code points
            return False
        key = (pending, at_start)
        known = self._completable.get(key)
        if known is None:
            known = any(self._completes(pending + data, at_start) for data in self._within)
            self._completable[key] = known
        return known

    def _completes(self, data: bytes, at_start: bool) -> bool:
        split = split_utf8(data)
        if split is None:
            return False
        text, rest = split
        if not text:
            return self._can_complete(rest, at_start)
        writable = len(text) == 1 and not rest and characters.is_writable(text)
        return writable and not characters.is_numeric(text) and (not at_start or characters.can_begin(text))
