"""The job that writes a request's texts: all slots and candidates decode together, a token and a draft each."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from bidtrie.creative.candidate import Candidate, Computed
from bidtrie.creative.constraint import Constraint
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.sampling import Sampler
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.drafts.drafter import DraftCounts, Drafter, DraftTree
from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Float32, StepOutput, TreeBatch
from bidtrie.errors import InvalidInput
from bidtrie.requests import CreativeText, GenerateQuery, Slot, TextDelta
from bidtrie.scheduling.job import Chunk, Job, OutOfTime
from bidtrie.scheduling.step_shape import StepShape

#: Seconds that a step takes in which this request has a part of some shape.
StepCost = Callable[[StepShape], float]


@dataclass(frozen=True, slots=True)
class Creatives:
    """Texts grouped by slot in the query's order, best first, and the prompt's size in tokens.

    partial: time ran out before every candidate was finished.
    """

    texts: tuple[CreativeText, ...]
    partial: bool
    prompt_tokens: int
    cached_tokens: int
    drafts: DraftCounts = field(default_factory=DraftCounts)


@dataclass(frozen=True, slots=True)
class Speculation:
    """Drafts for a request: where they come from, and what steps cost."""

    drafter: Drafter
    cost: StepCost


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
    speculation: Speculation | None = None,
) -> Job[Creatives]:
    """Write texts for every slot of the query.

    fixed: an open sequence that holds `prompt.fixed_tokens`; it is shared and left open. on_text: called on the
    engine's thread with pieces of text that stay, whole characters all. chunk: most nodes of a step, now; None: as
    many as the engine takes. speculation: what is fed ahead of the texts, which are the same with it and without.
    When time runs out and the query allows it, what there is is returned: finished texts, and for slots without any
    the best complete words of unfinished ones. OutOfTime passes where there is none.

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
                    trigger=None if speculation is None else speculation.drafter.trigger,
                )
                writings.append(_Writing(slot, number, candidate))
        while held:
            engine.close(held.pop())
        ahead = None if speculation is None else _Ahead(engine, constraint, speculation, writings)
        finished, partial = yield from _write(writings, query.allow_partial, chunk, ahead)
        counts = DraftCounts() if speculation is None else speculation.drafter.counts
        return Creatives(_ranked(query, finished), partial, prompt_tokens, cached, counts)
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


class _Ahead:
    """Decides what is fed ahead of a request's texts."""

    def __init__(
        self,
        engine: Engine,
        constraint: Constraint,
        speculation: Speculation,
        writings: Sequence[_Writing],
    ) -> None:
        self._engine = engine
        self._constraint = constraint
        self._speculation = speculation
        self._writings = writings

    def trees(self, part: Sequence[_Writing], live: Sequence[_Writing], room: int) -> list[DraftTree] | None:
        """A draft for each of the texts `part`, which are to be fed, or None; they have `room` nodes at most."""
        spec = self._engine.spec
        # Drafts must not be what fills the KV cache: another request's step may come before this one.
        room = min(room, self._engine.free_slots() - len(part) - 2 * spec.max_nodes)
        if not self._may_run_ahead(live):
            return None
        length = self._engine.length(part[0].candidate.sequence)
        cost, rows = self._speculation.cost, len(part)
        return self._speculation.drafter.grow(
            [writing.candidate.root for writing in part],
            self._constraint,
            room,
            # A step reads the head's weights once, so further rows cost far less than the first, from which the
            # cost model has learned what a row costs: those of drafts are left out, and count as nodes only.
            lambda nodes: cost(StepShape(nodes, nodes * length, rows, 0, 1)),
        )

    def verified(self, writing: _Writing, tree: DraftTree) -> None:
        """A tree has been walked."""
        if len(tree):
            self._speculation.drafter.counts.verified(writing.candidate.accepted)

    def _may_run_ahead(self, live: Sequence[_Writing]) -> bool:
        """Whether texts may get ahead of each other.

        Greedy texts of a slot begin with different tokens, so while one of them may yet take another first token,
        all go at one pace: who is first must not depend on drafts.
        """
        slots: dict[str, int] = {}
        for writing in self._writings:
            if writing.candidate.shares_first_tokens:
                slots[writing.slot.name] = slots.get(writing.slot.name, 0) + 1
        return not any(
            slots.get(writing.slot.name, 0) > 1 and writing.candidate.may_begin_anew for writing in live
        )


def _write(
    writings: Sequence[_Writing], allow_partial: bool, chunk: Chunk, ahead: _Ahead | None
) -> Generator[TreeBatch, StepOutput, tuple[list[_Writing], bool]]:
    """Decode until all are finished or time is up; returns the candidates that are, and whether some are not."""
    finished: list[_Writing] = []
    live = list(writings)
    fed: list[tuple[_Writing, DraftTree]] = []
    while True:
        chosen = [(writing, writing.candidate.choose()) for writing in live]
        if ahead is not None:
            for writing, tree in fed:
                ahead.verified(writing, tree)
        finished += [writing for writing, token in chosen if token is None]
        going = [(writing, token) for writing, token in chosen if token is not None]
        live = [writing for writing, _ in going]
        if not going:
            return finished, False
        try:
            fed = yield from _feed(going, chunk, ahead)
        except OutOfTime:
            if not allow_partial or not any(writing.candidate.best for writing in writings):
                raise
            served = {writing.slot.name for writing in finished if writing.candidate.best}
            return finished + [writing for writing in live if writing.slot.name not in served], True


def _feed(
    going: Sequence[tuple[_Writing, int]], chunk: Chunk, ahead: _Ahead | None
) -> Generator[TreeBatch, StepOutput, list[tuple[_Writing, DraftTree]]]:
    """Compute one token of each candidate, and what is fed ahead of it; returns the drafts."""
    live = [writing for writing, _ in going]
    drafted: list[tuple[_Writing, DraftTree]] = []
    start = 0
    while start < len(going):
        room = chunk()
        part = going[start : start + room]
        writings = live[start : start + len(part)]
        start += len(part)
        trees = None if ahead is None else ahead.trees(writings, live, room - len(part))
        tokens = [token for _, token in part]
        sequences = [writing.candidate.sequence for writing in writings]
        parents = [writing.candidate.parent for writing in writings]
        firsts: list[int] = []
        for i, tree in enumerate(trees or ()):
            first = len(tokens)
            firsts.append(first)
            tokens += tree.tokens
            sequences += [sequences[i]] * len(tree)
            parents += [i if parent < 0 else first + parent for parent in tree.parents]
        output = yield TreeBatch.of(tokens, sequences, parents, range(len(tokens)), logsumexp=True)
        nodes, sums = output.nodes.tolist(), output.logsumexp.tolist()
        for r, writing in enumerate(writings):
            root = Computed(nodes[r], output.row(r), sums[r])
            if trees is not None:
                _hang(root, trees[r], nodes, sums, output, firsts[r])
                drafted.append((writing, trees[r]))
            writing.candidate.feed(root)
    return drafted


def _hang(
    root: Computed,
    tree: DraftTree,
    nodes: Sequence[int],
    sums: Sequence[float],
    output: StepOutput,
    first: int,
) -> None:
    """Hang a tree's computed nodes below its root; node 0 of the tree is row `first` of the output."""
    root.guess = tree.guesses[0]
    hung: list[Computed] = []
    for i, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True), start=first):
        computed = Computed(nodes[i], output.row(i), sums[i], tree.guesses[i - first + 1])
        hung.append(computed)
        (root if parent < 0 else hung[parent]).below[token] = computed


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
