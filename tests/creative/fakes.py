"""Vocabularies made to be nasty, and an engine whose logits are drawn rather than computed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.requests import GenerateQuery, Product, Sampling, Slot, SlotType
from bidtrie.scheduling.job import Job
from reference.reference_engine import Node, ReferenceEngine
from reference.tiny_models import random_checkpoint

EOS = 0


class FakeTokenizer:
    """A tokenizer that is a list of tokens; token 0 ends a text. Text is encoded as if it were noise."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = [b"", *tokens]
        self.vocab_size = len(self._tokens)
        self.special_ids = frozenset({EOS})
        self.eos_ids = (EOS,)
        self.bos_id = None
        self.chat_template = None
        self.content_hash = "0" * 16

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        return [1 + byte % (self.vocab_size - 1) for byte in text.encode()[:12]]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return b"".join(self._tokens[i] for i in ids).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        return self._tokens[token] if token < self.vocab_size else b""

    def token_id(self, text: str) -> int | None:
        return None

    def id_of(self, data: bytes) -> int:
        return self._tokens.index(data, 1)


class FakeEngine(ReferenceEngine):
    """The reference engine's rules with logits that `function` makes of all the tokens that a node sees."""

    def __init__(self, size: int, function: Callable[[tuple[int, ...]], np.ndarray], **sizes: int) -> None:
        super().__init__(
            random_checkpoint(0, layers=1, hidden=32, intermediate=32, heads=1, kv_heads=1), **sizes
        )
        self.spec = replace(self.spec, vocab_size=size, context_length=4096)
        self._function = function
        self.asked: list[tuple[int, ...]] = []
        self.steps = 0

    def step(self, batch: TreeBatch) -> StepOutput:
        self.steps += 1
        return super().step(batch)

    def _logits(self, node: Node, batch: Sequence[Node]) -> np.ndarray:
        tokens = tuple(self._sees(node, batch)[0])
        self.asked.append(tokens)
        return self._function(tokens)

    @property
    def is_clean(self) -> bool:
        """Whether no sequence is open and no node kept: nothing takes a slot."""
        return not self._prefixes and self.free_slots() == self.spec.slots


def random_logits(size: int, seed: int, scale: float = 3.0) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Normal logits that depend on the whole path and nothing else."""

    def function(tokens: tuple[int, ...]) -> np.ndarray:
        digest = hashlib.blake2b(repr((seed, tokens)).encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "little")).normal(0, scale, size)

    return function


def query(
    limits: Sequence[int] = (30,),
    *,
    candidates: int = 1,
    sampling: Sampling | None = None,
    product: Product | None = None,
    deadline: float | None = None,
) -> GenerateQuery:
    slots = tuple(Slot(f"slot{i}", SlotType.HEADLINE, limit) for i, limit in enumerate(limits))
    return GenerateQuery(
        product=product or Product("Lamp", description="A lamp."),
        slots=slots,
        candidates=candidates,
        sampling=sampling or Sampling(),
        deadline=deadline,
    )


T = TypeVar("T")


def run(engine: Engine, job: Job[T]) -> T:
    """Run a job alone to its end."""
    output: StepOutput | None = None
    while True:
        try:
            batch: TreeBatch = next(job) if output is None else job.send(output)
        except StopIteration as stop:
            return stop.value
        output = engine.step(batch)


def parts(tokenizer: FakeTokenizer) -> tuple[Vocabulary, PromptTemplate]:
    return Vocabulary(tokenizer), PromptTemplate(tokenizer)  # type: ignore[arg-type]


#: Spaces inside and around, partial characters, control characters, line breaks, figures, markup, long tokens, CJK.
NASTY = [
    *(bytes([b]) for b in range(256)),
    *(f" {c}".encode() for c in "abcdefghijklmnopqrstuvwxyz0123456789$%é漢"),
    b"  ", b"   ", b"\n\n", b" \n", b".\n", b"\r\n", b"\t\t", b"\xc2\xa0", b" \xe2\x80", b"\xe2\x80", b"\x99s",
    b"\xf0\x9f", b"\xf0\x9f\x98", b"\x98\x80", b"\x80 and", b"a\xc3", b"\xa9t\xc3", b"\xed\xa0", b"\xc0\x80",
    b"ing", b"tion", b" the", b" of the", b"ization", b" counterrevolutionaries", b" internationalization", b" word ",
    b"20", b" 20", b"20%", b"$4.99", b".99", b"4.", b",000", b"...", b" [", b"]", b' "', b" **", b"\xef\xbb\xbf",
    "漢字".encode(), "カ".encode(), "ー".encode(), "。".encode(), "é".encode(), "🙂".encode(), "\u202e".encode(),
    b" &", b" -", b"-", b"'s", b", ", b"!", b"?", b" (", b")", b"<br>", b" http://", b"\xe2\x82\xac", b" \xe2\x82\xac",
]  # fmt: skip
