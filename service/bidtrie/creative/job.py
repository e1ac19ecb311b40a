"""The job that writes a request's texts: all slots and candidates decode together, one node each a step."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from bidtrie.creative.candidate import Candidate
from bidtrie.creative.constraint import Constraint
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.sampling import Sampler
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Float32, StepOutput, TreeBatch
from bidtrie.errors import InvalidInput
from bidtrie.requests import CreativeText, GenerateQuery, Slot, TextDelta
from bidtrie.scheduling.job import Chunk, Job, OutOfTime


@dataclass(frozen=True, slots=True)
class Creatives:
    """Texts grouped by slot in the query's order, best first, and the prompt's size in tokens.

    partial: time ran out before every candidate was finished.
    """

    texts: tuple[CreativeText, ...]
    partial: bool
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class _Writing:
    """A candidate and where it belongs."""

    slot: Slot
    number: int
    candidate: Candidate


def compute_prefix(engine: Engine, tokens: Sequence[int]) -> Job[int]:
    """A sequence that holds `tokens`, for `generate(fixed=…)`; whoever runs this closes it."""
    sequence = engine.open()
    done = False
    try:
        yield from _prefill(engine, [(sequence, tokens)], lambda: engine.spec.max_nodes)
        done = True
        return sequence
    finally:
        if not done:
            engine.close(sequence)


def generate(
    engine: Engine,
    vocabulary: Vocabulary,
    prompt: PromptTemplate,
    query: GenerateQuery,
    *,
    fixed: int | None = None,
    on_text: Callable[[TextDelta], None] | None = None,
    chunk: Chunk | None = None,
) -> Job[Creatives]:
    """Write texts for every slot of the query.

    fixed: an open sequence that holds `prompt.fixed_tokens`; it is shared and left open. on_text: called on the
    engine's thread with pieces of text that stay, whole characters all. chunk: most nodes of a step, now; None: as
    many as the engine takes. When time runs out and the query allows it, what there is is returned: finished texts, and
    for slots without any the best complete words of unfinished ones. OutOfTime passes where there is none.

    At temperature 0 candidate 0 is the greedy text; the others begin with the 2nd, 3rd … likeliest first tokens
    that are allowed and go on greedily. Equal texts of a slot are returned once, so there may be fewer than asked for.
    A text that finds no word to fit its limit is left out.
    Raises InvalidInput when the model's context has no room, the language is unknown, or tokens are to be drawn
    without a seed.
    """
    if query.sampling.temperature > 0 and query.sampling.seed is None:
        raise InvalidInput.of("sampling.seed", "is not set, expected a number when the temperature is over 0")
    chunk = chunk or (lambda: engine.spec.max_nodes)
    constraint = Constraint(vocabulary, facts(query), query.language)
    request = prompt.request_tokens(query)
    instructions = [prompt.slot_tokens(query, slot) for slot in query.slots]
    begin = list(prompt.fixed_tokens) if fixed is None else []
    cached = 0 if fixed is None else engine.length(fixed)
    longest = cached + len(begin) + len(request) + max(map(len, instructions))
    if longest >= engine.spec.context_length:
        raise InvalidInput.of(
            "product", f"the prompt has {longest} tokens, the model takes under {engine.spec.context_length}"
        )
    prompt_tokens = cached + len(begin) + len(request) + sum(map(len, instructions))
    held: list[int] = []
    writings: list[_Writing] = []
    try:
        shared = engine.open(share=fixed)
        held.append(shared)
        if len(instructions) == 1:
            instructions[0] = [*begin, *request, *instructions[0]]
        else:
            yield from _prefill(engine, [(shared, [*begin, *request])], chunk)
        held += [engine.open(share=shared) for _ in query.slots]
        rows = yield from _prefill(engine, list(zip(held[1:], instructions, strict=True)), chunk)
        for slot, sequence, (row, logsumexp) in zip(query.slots, held[1:], rows, strict=True):
            taken: set[int] | None = set() if query.sampling.temperature == 0 else None
            for number in range(query.candidates):
                candidate = Candidate(
                    engine,
                    engine.open(share=sequence),
                    constraint,
                    Sampler(query.sampling, slot.name, number),
                    slot.max_characters,
                    row=row,
                    logsumexp=logsumexp,
                    taken=taken,
                    on_text=_listener(on_text, slot.name, number),
                )
                writings.append(_Writing(slot, number, candidate))
        while held:
            engine.close(held.pop())
        finished, partial = yield from _write(writings, query.allow_partial, chunk)
        return Creatives(_ranked(query, finished), partial, prompt_tokens, cached)
    finally:
        for sequence in held:
            engine.close(sequence)
        for writing in writings:
            writing.candidate.close()


def facts(query: GenerateQuery) -> list[str]:
    """The texts whose figures an ad may use: what is said of the product, not whom the ad addresses."""
    product = query.product
    return [product.name, product.company, product.industry, product.description, *product.offers]


def _listener(
    on_text: Callable[[TextDelta], None] | None, slot: str, number: int
) -> Callable[[str], None] | None:
    return None if on_text is None else lambda text: on_text(TextDelta(slot, number, text))


def _prefill(
    engine: Engine, chains: Sequence[tuple[int, Sequence[int]]], chunk: Chunk
) -> Generator[TreeBatch, StepOutput, list[tuple[Float32, float]]]:
    """Commit tokens to sequences, at most `chunk()` a step.

    Returns for each chain its last token's logits and their log-sum-exp.
    """
    rows: list[tuple[Float32, float]] = []
    pieces = [(sequence, list(tokens), 0) for sequence, tokens in chains]
    while pieces:
        room = chunk()
        tokens: list[int] = []
        sequences: list[int] = []
        parents: list[int] = []
        wanted: list[int] = []
        spans: list[tuple[int, int, int]] = []
        while pieces and room:
            sequence, chain, start = pieces.pop(0)
            part = chain[start : start + room]
            first = len(tokens)
            tokens += part
            sequences += [sequence] * len(part)
            parents += [-1, *range(first, first + len(part) - 1)]
            spans.append((sequence, first, first + len(part)))
            room -= len(part)
            if start + len(part) < len(chain):
                pieces.insert(0, (sequence, chain, start + len(part)))
            else:
                wanted.append(len(tokens) - 1)
        output = yield TreeBatch.of(tokens, sequences, parents, wanted, logsumexp=True)
        for sequence, first, end in spans:
            engine.commit(sequence, output.nodes[first:end].tolist())
        rows += [(output.row(r).copy(), float(output.logsumexp[r])) for r in range(len(wanted))]
    return rows


def _write(
    writings: Sequence[_Writing], allow_partial: bool, chunk: Chunk
) -> Generator[TreeBatch, StepOutput, tuple[list[_Writing], bool]]:
    """Decode until all are finished or time is up; returns the candidates that are, and whether some are not."""
    finished: list[_Writing] = []
    live = list(writings)
    while True:
        chosen = [(writing, writing.candidate.choose()) for writing in live]
        finished += [writing for writing, token in chosen if token is None]
        going = [(writing, token) for writing, token in chosen if token is not None]
        live = [writing for writing, _ in going]
        if not going:
            return finished, False
        try:
            yield from _feed(going, chunk)
        except OutOfTime:
            if not allow_partial or not any(writing.candidate.best for writing in writings):
                raise
            served = {writing.slot.name for writing in finished if writing.candidate.best}
            return finished + [writing for writing in live if writing.slot.name not in served], True


def _feed(going: Sequence[tuple[_Writing, int]], chunk: Chunk) -> Generator[TreeBatch, StepOutput, None]:
    """Compute one token of each candidate."""
    start = 0
    while start < len(going):
        part = going[start : start + chunk()]
        start += len(part)
        output = yield TreeBatch.of(
            [token for _, token in part],
            [writing.candidate.sequence for writing, _ in part],
            [writing.candidate.parent for writing, _ in part],
            range(len(part)),
            logsumexp=True,
        )
        for r, (writing, _) in enumerate(part):
            writing.candidate.feed(int(output.nodes[r]), output.row(r), float(output.logsumexp[r]))


def _ranked(query: GenerateQuery, finished: Sequence[_Writing]) -> tuple[CreativeText, ...]:
    """Each slot's texts by score, best first (ties: in order of generation), equal ones once."""
    texts: list[CreativeText] = []
    for slot in query.slots:
        found = [(w.number, w.candidate.best) for w in finished if w.slot.name == slot.name]
        endings = [(number, best) for number, best in found if best is not None]
        unique: dict[str, CreativeText] = {}
        for _, best in sorted(endings, key=lambda item: (-item[1].score, item[0])):
            text = CreativeText(slot.name, len(unique), best.text, best.score, best.tokens)
            unique.setdefault(best.text, text)
        texts += unique.values()
    return tuple(texts)
