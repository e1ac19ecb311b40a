"""Compressed models beside the dense one, as they are served: quality, milliseconds, what they write."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.fidelity import Fidelity, compare, greedy
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.evaluation.creative import LIMITS, LabelledProduct
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import GenerateQuery, Product, Slot, SlotType

#: Told what is done now, and how many steps of it of how many.
Progress = Callable[[str, int, int], None]

#: The dense model's name among the measured.
DENSE = "dense"
_CACHED_TOKENS = 100
_STEPS = 16
_ROUNDS = 5
_SAMPLE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on the native engine.

    decode_ms: a step of one node on a cached text of 100 tokens, head included, the median of rounds in turn with the
    others. samples: what it writes greedily for each product of `measure`.
    """

    fidelity: Fidelity
    decode_ms: float
    samples: Sequence[str]


def measure(
    dense: Checkpoint,
    others: Mapping[str, Checkpoint],
    sequences: NDArray[np.int64],
    products: Sequence[LabelledProduct],
    threads: int,
    progress: Progress,
) -> dict[str, Measured]:
    """Measure models against `dense`, which is computed in float32 and is called `DENSE` in the answer.

    sequences: int64 [sequences, tokens], held-out text. products: what samples are written for.
    """
    room = dense.config.context_length - _SAMPLE_TOKENS
    prompts = [_prompt(product, dense.tokenizer)[-room:] for product in products]
    nodes = max(sequences.shape[1], _CACHED_TOKENS, *map(len, prompts))
    engines: dict[str, Engine] = {}
    try:
        engines[DENSE] = NativeEngine(
            dense, threads=threads, slots=2 * nodes + 512, max_nodes=nodes, weights="float32"
        )
        for name, each in others.items():
            engines[name] = NativeEngine(each, threads=threads, slots=2 * nodes + 512, max_nodes=nodes)
        times = decode_times(engines, sequences[0], lambda done, total: progress("timing", done, total))
        compressed = {name: engine for name, engine in engines.items() if name != DENSE}
        own, fidelities = compare(
            engines[DENSE], compressed, sequences, lambda done, total: progress("comparing", done, total)
        )
        fidelities[DENSE] = own
        measured = {}
        for done, (name, engine) in enumerate(engines.items()):
            progress("writing samples", done, len(engines))
            samples = [_written(engine, prompt, dense.tokenizer) for prompt in prompts]
            measured[name] = Measured(fidelities[name], times[name], samples)
        return measured
    finally:
        for engine in engines.values():
            engine.shutdown()


def decode_times(
    engines: Mapping[str, Engine],
    tokens: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """ms of a step of one node on a cached text, for each engine; engines take turns, so drift hits all alike."""
    text = np.resize(tokens, _CACHED_TOKENS + _STEPS).astype(np.int32)
    found: dict[str, list[float]] = {name: [] for name in engines}
    for done in range(_ROUNDS):
        progress(done, _ROUNDS)
        for name, engine in engines.items():
            found[name].append(_decode_ms(engine, text))
    return {name: float(np.median(each)) for name, each in found.items()}


def _decode_ms(engine: Engine, text: NDArray[np.int32]) -> float:
    sequence = engine.open()
    try:
        output = engine.step(TreeBatch.chain(text[:_CACHED_TOKENS], sequence))
        engine.commit(sequence, output.nodes.tolist())
        times = []
        for token in text[_CACHED_TOKENS:]:
            batch = TreeBatch.chain([int(token)], sequence, last_logits=True)
            begun = time.perf_counter()
            output = engine.step(batch)
            int(output.row(0).argmax())
            times.append((time.perf_counter() - begun) * 1e3)
            engine.commit(sequence, output.nodes.tolist())
    finally:
        engine.close(sequence)
    return float(np.median(times))


def _prompt(product: LabelledProduct, tokenizer: Tokenizer) -> list[int]:
    """The creative prompt that the service uses for such a product."""
    template = PromptTemplate(tokenizer)
    kind = SlotType.DESCRIPTION if product.type == "description" else SlotType.HEADLINE
    slot = Slot("text", kind, LIMITS[product.type])
    query = GenerateQuery(
        product=Product(product.company, industry=product.industry, description=product.description),
        slots=(slot,),
    )
    return [*template.fixed_tokens, *template.rest_tokens(query, slot)]


def _written(engine: Engine, prompt: list[int], tokenizer: Tokenizer) -> str:
    """Without the service's constraints, which would hide what a model does wrong."""
    tokens = greedy(engine, prompt, _SAMPLE_TOKENS, frozenset(tokenizer.eos_ids))
    return tokenizer.decode(tokens).strip().partition("\n")[0]
