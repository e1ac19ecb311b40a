"""Text to token ids and back, and the exact bytes of every token."""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import tokenizers

from bidtrie.errors import InvalidInput, ModelError
from bidtrie.models.config import LIMITS
from bidtrie.models.fields import printable

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"


def byte_level_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE, reversed.

    Source: `bytes_to_unicode` of GPT-2's encoder.py: printable Latin-1 characters stand for themselves, the other
    bytes, in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


class Tokenizer:
    """A model's tokenizer.

    special_ids: tokens that stand for no text: control tokens, unknown and unused ones.
    eos_ids: tokens that end a text; bos_id: the token that the model expects first, if it expects one.
    vocab_size: ids that have a token are below it (a model's own vocabulary may be padded beyond it).
    """

    special_ids: frozenset[int]
    eos_ids: tuple[int, ...]
    bos_id: int | None
    vocab_size: int
    chat_template: str | None

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        source: str,
        eos_ids: Sequence[int] = (),
        bos_id: int | None = None,
        chat_template: str | None = None,
        unused_ids: Sequence[int] = (),
    ) -> None:
        """Wrap `backend`; `source` names the file in errors. Raises ModelError if the kind of tokenizer is unknown."""
        # Before anything that walks over all ids, as writing the definition out does.
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        if not 1 <= self.vocab_size <= LIMITS["vocab_size"]:
            raise ModelError(
                f"{source}: token ids go up to {self.vocab_size - 1}, expected 0 to {LIMITS['vocab_size'] - 1}"
            )
        backend.no_truncation()
        backend.no_padding()
        self._parsing = backend
        self._definition = backend.to_str()
        # Text that happens to spell a special token stays text: page titles are not trusted.
        self._plain = _from_definition(self._definition, source)
        self._plain.encode_special_tokens = True
        definition = json.loads(self._definition)
        added = backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special} | set(unused_ids)
        special.update(_unknown_ids(definition["model"], vocabulary))
        self.special_ids = frozenset(special)
        self.eos_ids = tuple(eos_ids)
        self.bos_id = bos_id
        self.chat_template = chat_template
        self._added = {i: token.content.encode() for i, token in added.items()}
        self._byte_level = _is_byte_level(definition, source)

    @classmethod
    def from_json(
        cls,
        text: str,
        *,
        source: str,
        eos_ids: Sequence[int] = (),
        bos_id: int | None = None,
        chat_template: str | None = None,
        unused_ids: Sequence[int] = (),
    ) -> "Tokenizer":
        """From the text of a `tokenizer.json`. Raises ModelError if it is not one."""
        return cls(
            _from_definition(text, source),
            source=source,
            eos_ids=eos_ids,
            bos_id=bos_id,
            chat_template=chat_template,
            unused_ids=unused_ids,
        )

    def with_ends(self, *, bos_id: int | None, eos_ids: Sequence[int]) -> "Tokenizer":
        """The same tokenizer with other tokens that begin and end a text."""
        other = copy.copy(self)
        other.bos_id, other.eos_ids = bos_id, tuple(eos_ids)
        other.__dict__.pop("content_hash", None)
        return other

    @property
    def definition(self) -> str:
        """The text of a `tokenizer.json` that `from_json` makes the same ids and bytes of."""
        return self._definition

    @property
    def added_first(self) -> int | None:
        """The special token that the definition's own post-processor puts in front of a text, if any."""
        first = self._parsing.encode("a", add_special_tokens=True).ids[:1]
        return first[0] if first and first[0] in self.special_ids else None

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of `text`, none added in front or behind.

        Bytes that the vocabulary has no token for (in some, rare control characters) are left out.
        With `parse_special`, text that spells a special token becomes that token: for prompts of our own making only.
        Raises InvalidInput for text that is not valid Unicode (lone surrogates).
        """
        try:
            return (
                (self._parsing if parse_special else self._plain).encode(text, add_special_tokens=False).ids
            )
        except TypeError:
            # tokenizers says so of strings that it cannot turn into UTF-8, too.
            if not isinstance(text, str):
                raise
            raise InvalidInput.of("text", "holds a lone surrogate, expected valid Unicode") from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._parsing.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token: int) -> bytes:
        """The exact bytes that a token stands for; empty for special tokens and ids without a token.

        A token may hold part of a character only.
        """
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written `text` in the vocabulary, for example "<|im_end|>"."""
        return self._parsing.token_to_id(text)

    def token_text(self, token: int) -> str | None:
        """How a token is written in the vocabulary: the inverse of `token_id`."""
        return self._parsing.id_to_token(token)

    @cached_property
    def content_hash(self) -> str:
        """16 hexadecimal digits that change with anything that changes the ids or their bytes."""
        digest = hashlib.blake2b(self._definition.encode(), digest_size=8)
        digest.update(json.dumps([sorted(self.special_ids), self.eos_ids, self.bos_id]).encode())
        return digest.hexdigest()

    @cached_property
    def _bytes(self) -> list[bytes]:
        alphabet = byte_level_alphabet()
        table = [b""] * self.vocab_size
        for text, token in self._parsing.get_vocab(with_added_tokens=True).items():
            if token in self.special_ids:
                continue
            if token in self._added:
                table[token] = self._added[token]
            elif self._byte_level:
                table[token] = b"".join(bytes([alphabet[c]]) if c in alphabet else c.encode() for c in text)
            elif byte := _BYTE_TOKEN.fullmatch(text):
                table[token] = bytes([int(byte[1], 16)])
            else:
                table[token] = text.replace(_SPACE, " ").encode()
        return table


def _unknown_ids(model: dict[str, Any], vocabulary: dict[str, int]) -> list[int]:
    """The id that stands for text without a token; BPE names its token, Unigram its id."""
    named = vocabulary.get(model.get("unk_token") or "")
    return [token for token in (named, model.get("unk_id")) if token is not None]


def _from_definition(text: str, source: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelError(f"{source}: is not a tokenizer definition: {printable(str(error), 200)}") from None


def _is_byte_level(definition: dict[str, Any], source: str) -> bool:
    """Whether tokens are written in the byte-level alphabet (else SentencePiece's way, with U+2581 for a space)."""
    decoder = definition.get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return True
    spaces = any(
        step.get("type") == "Replace" and step.get("pattern") == {"String": _SPACE} for step in steps
    )
    if spaces or "Metaspace" in kinds:
        return False
    raise ModelError(
        f"{source}: the tokenizer's decoder is {decoder.get('type')}, expected byte-level or SentencePiece's"
    )
