"""With drafts and without: the same texts, scores and pieces, whatever shares a step and however wrong they are."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from bidtrie.creative.job import Creatives, Speculation, StepCost, _Ahead, generate
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.drafts.drafter import Drafter, Source
from bidtrie.drafts.drafting import Drafting
from bidtrie.drafts.phrase_trie import Following, PhraseTrie, start
from bidtrie.drafts.trigger import Trigger
from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import Candidates, StepOutput, TreeBatch
from bidtrie.load.words import WORDS
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import GenerateQuery, Product, Sampling, Slot, SlotType, TextDelta
from bidtrie.scheduling.job import Job, OutOfTime, Plan
from bidtrie.scheduling.scheduler import Level, Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from creative.fakes import NASTY, FakeEngine, FakeTokenizer, parts, query, random_logits, run
from reference.tiny_models import save_tiny_model

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY, PROMPT = parts(TOKENIZER)
SIZE = VOCABULARY.size
SAMPLED = Sampling(0.8, 0.95, 40, seed=11)


def engine(seed: int = 1, **sizes: int) -> FakeEngine:
    return FakeEngine(SIZE, random_logits(SIZE, seed, 5.0), **sizes)


def flat(shape: StepShape) -> float:
    """Steps that cost nearly the same whatever their size: everything likely is drafted."""
    return 1.0 + 1e-3 * shape.nodes


def dear(shape: StepShape) -> float:
    """Steps of which every node costs the same: no draft pays."""
    return 1.0 * shape.nodes


def products(count: int) -> list[GenerateQuery]:
    """Products of listed words, with figures and without, with tight limits and wide, one slot or two, candidates."""
    found = []
    for i in range(count):
        words = [WORDS[(17 * i + 29 * k) % len(WORDS)] for k in range(8)]
        figures = ("20% off, $4.99", "") if i % 2 else ("", "for 24 hours")
        slots = (
            (Slot("a", SlotType.HEADLINE, (12, 30, 200)[i % 3]),)
            if i % 4
            else (Slot("a", SlotType.HEADLINE, 30), Slot("b", SlotType.DESCRIPTION, 60))
        )
        product = Product(f"{words[0]} {words[1]}", words[2], words[3], " ".join(words), figures)
        found.append(
            GenerateQuery(product, slots, candidates=1 + i % 3, language="ja" if i % 5 == 4 else "en")
        )
    return found


@dataclass
class Written:
    """Everything that a request's caller sees, and what its job did."""

    result: Creatives
    pieces: dict[tuple[str, int], list[str]]


@dataclass
class Listener:
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def __call__(self, delta: TextDelta) -> None:
        self.pieces.setdefault((delta.slot, delta.candidate), []).append(delta.text)


Sources = Sequence[Source]


def speculation(sources: Sources, sampled: bool, cost: StepCost = flat, nodes: int = 8) -> Speculation:
    drafter = Drafter(sources, Trigger(), vocabulary=SIZE, sampled=sampled, most_nodes=nodes)
    return Speculation(drafter, cost)


def write(on: Engine, asked: GenerateQuery, ahead: Speculation | None = None) -> Written:
    listener = Listener()
    job = generate(on, VOCABULARY, PROMPT, asked, on_text=listener, speculation=ahead)
    return Written(run(on, job), listener.pieces)


def same(one: Written, other: Written) -> bool:
    """Texts in their order, scores to the last bit, numbers of tokens, and pieces in their order."""
    return one.result.texts == other.result.texts and one.pieces == other.pieces


def own_text(on: FakeEngine) -> list[Source]:
    """What the model has been seen to say: the best draft that there is."""
    texts = [(path[-5:], 1.0) for path in on.asked]
    return [Source("own", PhraseTrie(texts, SIZE))]


class Adversary:
    """Drafts of random tokens, most of them against the rules: stops, markup, half characters, wrong figures."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def following(self, context: Sequence[int]) -> Following:
        tokens = self._rng.choice(SIZE, 4, replace=False).tolist()
        return 1 + len(context) % 3, tuple((token, 0.25) for token in tokens)


def test_200_products_are_written_the_same_and_in_fewer_steps() -> None:
    accepted = plain_steps = steps = 0
    for i, asked in enumerate(products(200)):
        plain = engine(i % 7)
        before = write(plain, asked)
        drafted = engine(i % 7)
        ahead = speculation(own_text(plain), sampled=False)
        after = write(drafted, asked, ahead)
        assert same(before, after), asked
        assert plain.is_clean
        assert drafted.is_clean
        counts = ahead.drafter.counts
        accepted += counts.accepted
        assert counts.accepted == sum(length * count for length, count in counts.lengths.items())
        assert set(plain.asked) <= set(drafted.asked), "nothing that plain decoding feeds is left out"
        plain_steps += plain.steps
        steps += drafted.steps
    assert accepted > 1000, "drafts are accepted often, or this shows nothing"
    assert steps < 0.7 * plain_steps


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cost", [flat, dear])
def test_sampled_texts_too_and_whatever_the_trigger_thinks(sampling: Sampling, cost: StepCost) -> None:
    accepted = 0
    for seed in range(12):
        asked = query((12, 40, 200), candidates=3, sampling=sampling)
        plain = engine(seed)
        before = write(plain, asked)
        ahead = speculation(own_text(plain), sampling.temperature > 0, cost)
        assert same(before, write(engine(seed), asked, ahead))
        accepted += ahead.drafter.counts.accepted
    assert accepted == 0 if cost is dear else accepted > 300


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_wrong_and_illegal_drafts_change_nothing(sampling: Sampling) -> None:
    fed = 0
    for seed, asked in enumerate(products(30)):
        asked = query((20, 120), candidates=2, product=asked.product, sampling=sampling)
        before = write(engine(seed), asked)
        drafted = engine(seed)
        sources = [Source("adversary", Adversary(seed)), *(own_text(drafted) if seed % 2 else [])]
        ahead = speculation(sources, sampling.temperature > 0, nodes=20)
        assert same(before, write(drafted, asked, ahead))
        assert drafted.is_clean
        fed += ahead.drafter.counts.nodes
    assert fed > 300


SYLLABLES = FakeTokenizer([*(2 * bytes([byte]) for byte in b"abcdefghi"), b"jjjjjj", b"kkk", b" a"])


def test_candidates_that_take_first_tokens_from_each_other_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tight limits make greedy candidates go back to their first word, and drafts help some of them only."""
    vocabulary, prompt = parts(SYLLABLES)

    def differ() -> tuple[int, int]:
        """Requests that drafts change, and accepted tokens."""
        different = accepted = 0
        for seed, limit in itertools.product(range(40), (4, 9, 16)):
            asked = query((limit,), candidates=3)
            found = []
            sources: list[Source] = []
            for _ in range(2):
                on = FakeEngine(vocabulary.size, random_logits(vocabulary.size, seed))
                drafter = Drafter(sources, Trigger(), vocabulary=vocabulary.size, sampled=False, most_nodes=8)
                ahead, listener = Speculation(drafter, flat), Listener()
                job = generate(on, vocabulary, prompt, asked, on_text=listener, speculation=ahead)
                found.append(Written(run(on, job), listener.pieces))
                half = ((path[-5:], 1.0) for path in on.asked if sum(path) % 2)
                sources.append(Source("own", PhraseTrie(half, vocabulary.size)))
            different += not same(*found)
            accepted += drafter.counts.accepted
        return different, accepted

    different, accepted = differ()
    assert different == 0
    assert accepted > 20
    monkeypatch.setattr(_Ahead, "_may_run_ahead", lambda self, live: True)
    assert differ()[0] > 10, "the control: candidates that run ahead at their first word"


def test_drafts_keep_to_the_chunk_and_leave_a_nearly_full_cache_alone() -> None:
    asked = query((30, 90), candidates=3, sampling=SAMPLED)
    plain = engine()
    before = write(plain, asked)
    for chunk in (1, 2, 7, 9, 30):
        on = engine()
        sizes: list[int] = []
        step = on.step

        def watched(
            batch: TreeBatch,
            step: Callable[[TreeBatch], StepOutput] = step,
            sizes: list[int] = sizes,
        ) -> StepOutput:
            sizes.append(len(batch))
            return step(batch)

        on.step = watched  # type: ignore[method-assign]
        ahead = speculation(own_text(plain), sampled=True)
        job = generate(on, VOCABULARY, PROMPT, asked, chunk=lambda c=chunk: c, speculation=ahead)  # type: ignore[misc]
        assert run(on, job).texts == before.result.texts
        assert max(sizes) <= chunk
        assert (ahead.drafter.counts.accepted > 0) == (chunk > 1)
    small = engine(slots=300, max_nodes=128)
    ahead = speculation(own_text(plain), sampled=True)
    assert same(before, write(small, asked, ahead))
    assert ahead.drafter.counts.nodes == 0


def test_a_full_context_ends_texts_alike() -> None:
    longest = len(PROMPT.fixed_tokens) + len(PROMPT.rest_tokens(query(), query().slots[0]))
    for room in (1, 2, 5, 9):
        plain, drafted = engine(3), engine(3)
        for on in (plain, drafted):
            on.spec = dataclasses.replace(on.spec, context_length=longest + room)
        before = write(plain, query((500,)))
        assert same(before, write(drafted, query((500,)), speculation(own_text(plain), sampled=False)))


def targeting_like(on: Engine, seed: int, steps: int) -> Job[list[float]]:
    """Other work of the same engine: trees whose rows ask for a few tokens only; returns all its logits."""
    rng = np.random.default_rng(seed)
    sequence = on.open()
    found: list[float] = []
    try:
        output = yield TreeBatch.chain(rng.integers(1, 40, 5).tolist(), sequence)
        on.commit(sequence, output.nodes.tolist())
        for _ in range(steps):
            size = int(rng.integers(2, 8))
            parents = [-1, *(int(rng.integers(-1, i)) for i in range(1, size))]
            rows = [rng.choice(SIZE, 3, replace=False).tolist() for _ in range(2)]
            tokens = rng.integers(1, 40, size).tolist()
            output = yield TreeBatch.of(tokens, sequence, parents, [0, size - 1], Candidates.of(rows))
            found += output.logits.tolist()
    finally:
        on.close(sequence)
    return found


def test_requests_of_different_kinds_share_steps() -> None:
    """A scheduler with creatives, greedy and drawn, and other work, all at once: everybody gets what it gets alone."""
    asked = products(24)
    asked[1::3] = [query((30, 90), candidates=2, product=q.product, sampling=SAMPLED) for q in asked[1::3]]
    plain = engine()
    alone = [write(plain, each) for each in asked]
    wanted = []
    for seed in range(6):
        on = engine()
        wanted.append(run(on, targeting_like(on, seed, 12)))

    shared = engine(max_nodes=64)
    scheduler = Scheduler([Level(shared)], max_requests=100, max_step_s=1e9)
    sizes: list[int] = []
    step = shared.step

    def watched(batch: TreeBatch) -> StepOutput:
        sizes.append(len(set(batch.sequence.tolist())))
        return step(batch)

    shared.step = watched  # type: ignore[method-assign]
    aheads = [speculation(own_text(plain), each.sampling.temperature > 0) for each in asked]
    listeners = [Listener() for _ in asked]

    def creative(i: int) -> Plan[Creatives]:
        return Plan(
            "creative",
            0,
            (StepShape(1, 0, 1, 0, 1),),
            lambda: generate(
                shared, VOCABULARY, PROMPT, asked[i], on_text=listeners[i], speculation=aheads[i],
                chunk=lambda: scheduler.chunk(0),
            ),
        )  # fmt: skip

    def other(seed: int) -> Plan[list[float]]:
        return Plan("other", 0, (StepShape(5, 0, 0, 6, 1),), lambda: targeting_like(shared, seed, 12))

    texts = [scheduler.submit([creative(i)], None, ServiceClass.CREATIVE) for i in range(len(asked))]
    rest = [scheduler.submit([other(seed)]) for seed in range(6)]
    while scheduler.round() is not None:
        pass
    for before, future, listener in zip(alone, texts, listeners, strict=True):
        assert same(before, Written(future.result().result, listener.pieces))
    assert [future.result().result for future in rest] == wanted
    assert sum(ahead.drafter.counts.accepted for ahead in aheads) > 100
    assert max(sizes) > 4, "steps are shared"
    assert shared.is_clean


def test_out_of_time_and_closing_give_everything_back_in_the_middle_of_a_draft() -> None:
    asked = query((12, 200), candidates=2, sampling=SAMPLED)
    plain = engine()
    write(plain, asked)
    sources = own_text(plain)
    served = 0
    for steps in range(1, 40):
        for closes in (False, True):
            on = engine()
            job = generate(on, VOCABULARY, PROMPT, asked, speculation=speculation(sources, sampled=True))
            try:
                batch = next(job)
                for _ in range(steps):
                    batch = job.send(on.step(batch))
                if closes:
                    job.close()
                else:
                    job.throw(OutOfTime())
            except StopIteration as stop:
                served += stop.value.partial
            except OutOfTime:
                pass
            assert on.is_clean
    assert served > 3


def test_the_native_engine_writes_the_same(tmp_path: Path) -> None:
    """The real engine's own rules for kept, committed and dropped nodes, with the tokenizer's own text as drafts."""
    save_tiny_model("llama", tmp_path, 5)
    checkpoint = load_checkpoint(tmp_path)
    vocabulary = Vocabulary(checkpoint.tokenizer, checkpoint.config.vocab_size)
    prompt = PromptTemplate(checkpoint.tokenizer)
    prompt.fixed_tokens = prompt.fixed_tokens[:20]
    on = NativeEngine(checkpoint, threads=1)
    free = on.free_slots()
    drafting = Drafting(checkpoint.tokenizer.encode, vocabulary.size)
    accepted = 0
    for i, sampling in itertools.product(range(6), (Sampling(), SAMPLED)):
        product = Product(company=f"Acme {i}", description="A lamp, 20% off.")
        asked = query((25, 60), candidates=2, product=product, sampling=sampling)
        plain = run(on, generate(on, vocabulary, prompt, asked))
        texts = [(checkpoint.tokenizer.encode(text.text), 1.0) for text in plain.texts]
        begin = start(vocabulary.size)
        own = PhraseTrie((([begin, *tokens], weight) for tokens, weight in texts), vocabulary.size)
        drafter = drafting.drafter(asked, [Source("own", own), *drafting.sources(asked)])
        assert drafter is not None
        job = generate(on, vocabulary, prompt, asked, speculation=Speculation(drafter, flat))
        assert run(on, job).texts == plain.texts
        assert on.free_slots() == free
        accepted += drafter.counts.accepted
    assert accepted > 20
    on.shutdown()


def test_a_candidate_that_trusts_its_draft_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: if the draft's child is followed without asking the model, texts differ."""
    from bidtrie.creative.candidate import Candidate

    draw = Candidate._draw

    def trusting(self: Candidate) -> int | None:
        token = draw(self)
        below = self._here.below
        return next(iter(below)) if below and token not in below else token

    asked = query((60,), sampling=SAMPLED)
    before = write(engine(), asked)
    monkeypatch.setattr(Candidate, "_draw", trusting)
    ahead = speculation([Source("adversary", Adversary(0))], sampled=True)
    assert not same(before, write(engine(), asked, ahead))
