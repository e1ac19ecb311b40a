"""The job: several slots and candidates at once, streams, seeds, deadlines, and giving everything back."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from bidtrie.creative.job import Creatives, compute_prefix, generate
from bidtrie.engine.tree_batch import Joined, StepOutput, TreeBatch
from bidtrie.errors import EngineError, InvalidInput, OutOfSlots
from bidtrie.requests import CreativeText, GenerateQuery, Sampling, Slot, SlotType, TextDelta
from bidtrie.scheduling.job import Job, OutOfTime
from creative.fakes import EOS, NASTY, FakeEngine, FakeTokenizer, parts, query, random_logits, run

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY, PROMPT = parts(TOKENIZER)
SAMPLED = Sampling(1.0, 0.9, 20, seed=7)


def engine(seed: int = 1, **sizes: int) -> FakeEngine:
    return FakeEngine(VOCABULARY.size, random_logits(VOCABULARY.size, seed), **sizes)


def job(on: FakeEngine, asked: GenerateQuery, **options: object) -> Job[Creatives]:
    return generate(on, VOCABULARY, PROMPT, asked, **options)  # type: ignore[arg-type]


def without_rank(texts: Sequence[CreativeText]) -> set[tuple[str, str, float]]:
    return {(text.slot, text.text, text.score) for text in texts}


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_texts_do_not_depend_on_company_chunks_or_a_cached_prefix(sampling: Sampling) -> None:
    asked = query((30, 90, 12), candidates=3, sampling=sampling)
    on = engine()
    alone = run(on, job(on, asked))
    assert {text.slot for text in alone.texts} == {"slot0", "slot1", "slot2"}

    small = engine(max_nodes=2)
    assert run(small, job(small, asked)).texts == alone.texts

    cached = engine()
    fixed = run(cached, compute_prefix(cached, PROMPT.fixed_tokens))
    again = run(cached, job(cached, asked, fixed=fixed))
    assert again.texts == alone.texts
    assert (again.cached_tokens, alone.cached_tokens) == (len(PROMPT.fixed_tokens), 0)
    assert again.prompt_tokens == alone.prompt_tokens
    assert cached.length(fixed) == len(PROMPT.fixed_tokens)
    cached.close(fixed)
    assert cached.is_clean

    together = engine()
    others = [query((40,), sampling=Sampling(1.0, seed=s), candidates=2) for s in range(3)]
    jobs = [job(together, each) for each in (others[0], asked, *others[1:])]
    assert run_together(together, jobs)[1].texts == alone.texts
    assert together.is_clean

    one = dataclasses.replace(asked, slots=asked.slots[1:2])
    on = engine()
    only = run(on, job(on, one))
    assert only.texts == tuple(text for text in alone.texts if text.slot == "slot1")


def run_together(on: FakeEngine, jobs: Sequence[Job[Creatives]]) -> list[Creatives]:
    """All jobs in joined steps, as long as each lasts."""
    results: dict[int, Creatives] = {}
    waiting = {i: next(each) for i, each in enumerate(jobs)}
    while waiting:
        order = list(waiting)
        joined = Joined.of([waiting[i] for i in order])
        for i, part in zip(order, joined.split(on.step(joined.batch)), strict=True):
            try:
                waiting[i] = jobs[i].send(part)
            except StopIteration as stop:
                results[i] = stop.value
                del waiting[i]
    return [results[i] for i in range(len(jobs))]


def test_seeds_reproduce_and_differ() -> None:
    texts = []
    for seed in (1, 1, 2):
        on = engine()
        texts.append(run(on, job(on, query((60,), candidates=4, sampling=Sampling(1.5, seed=seed)))).texts)
    assert texts[0] == texts[1]
    assert not without_rank(texts[0]) & without_rank(texts[2])


def test_fewer_candidates_are_the_first_of_more() -> None:
    found = []
    for candidates in (2, 6):
        on = engine()
        found.append(
            without_rank(run(on, job(on, query((40,), candidates=candidates, sampling=SAMPLED))).texts)
        )
    assert found[0] <= found[1]


def test_greedy_candidates_begin_with_different_tokens_in_order_of_likelihood() -> None:
    on = engine()
    asked = query((40,), candidates=4)
    result = run(on, job(on, asked))
    prompt = result.prompt_tokens
    first = [path[prompt] for path in on.asked if len(path) == prompt + 1][:4]
    row = on._function(on.asked[0]).astype(np.float32)
    mask = VOCABULARY.at_start & ~VOCABULARY.numeric & ~VOCABULARY.foreign
    assert first == np.argsort(-np.where(mask, row, -np.inf), kind="stable")[:4].tolist()
    one = engine()
    assert without_rank(run(one, job(one, query((40,)))).texts) <= without_rank(result.texts)


def test_equal_texts_come_once() -> None:
    tokenizer = FakeTokenizer([b"yes", b" no"])
    vocabulary, prompt = parts(tokenizer)
    on = FakeEngine(3, lambda tokens: np.array([1.0, 0.0, 0.0]))
    asked = query((20,), candidates=16, sampling=Sampling(1.0, seed=3))
    texts = [text.text for text in run(on, generate(on, vocabulary, prompt, asked)).texts]
    assert len(texts) == len(set(texts)) < 16
    assert "yes" in texts


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_streams_append_to_the_finished_texts(sampling: Sampling) -> None:
    streamed = 0
    for seed in range(12):
        on = engine(seed)
        pieces: dict[tuple[str, int], list[str]] = {}

        def listen(delta: TextDelta, pieces: dict[tuple[str, int], list[str]] = pieces) -> None:
            pieces.setdefault((delta.slot, delta.candidate), []).append(delta.text)

        asked = query((50, 20), candidates=2, sampling=sampling)
        result = run(on, job(on, asked, on_text=listen))
        wanted = {(text.slot, text.text) for text in result.texts}
        assert {(slot, "".join(found)) for (slot, _), found in pieces.items()} == wanted
        assert all(piece for found in pieces.values() for piece in found)
        streamed += sum(len(found) > 1 for found in pieces.values())
    assert streamed > 5, "some texts come in several pieces"


def test_closing_at_any_step_gives_everything_back() -> None:
    asked = query((30, 60), candidates=3, sampling=SAMPLED)
    on = engine(max_nodes=7)
    fixed = run(on, compute_prefix(on, PROMPT.fixed_tokens))
    free = on.free_slots()
    steps = 0
    while True:
        steps += 1
        running = job(on, asked, fixed=fixed)
        output: StepOutput | None = None
        try:
            for _ in range(steps):
                output = on.step(next(running) if output is None else running.send(output))
        except StopIteration:
            break
        running.close()
        assert on.free_slots() == free
        assert list(on._prefixes) == [fixed]
    assert steps > 10
    on.close(fixed)
    assert on.is_clean


def test_a_job_never_started_and_a_prefix_cut_short_hold_nothing() -> None:
    on = engine(max_nodes=3)
    job(on, query()).close()
    prefix = compute_prefix(on, PROMPT.fixed_tokens)
    on.step(next(prefix))
    prefix.close()
    assert on.is_clean


def test_a_full_cache_gives_everything_back() -> None:
    on = engine(slots=PROMPT_SIZE + 4)
    with pytest.raises(OutOfSlots):
        run(on, job(on, query((60,), candidates=4, sampling=SAMPLED)))
    assert on.is_clean


PROMPT_SIZE = len(PROMPT.fixed_tokens) + len(PROMPT.rest_tokens(query(), query().slots[0]))


def test_batches_are_as_small_as_the_engine_wants_and_shrink() -> None:
    on = engine(max_nodes=5)
    sizes = []
    step = on.step

    def watched(batch):  # type: ignore[no-untyped-def]
        sizes.append(len(batch))
        return step(batch)

    on.step = watched  # type: ignore[method-assign]
    run(on, job(on, query((20, 60), candidates=4, sampling=SAMPLED)))
    assert max(sizes) == 5
    assert sizes[-1] == 1, "finished candidates leave"


def test_running_out_of_time_returns_what_there_is() -> None:
    whole = engine()
    full = run(whole, job(whole, query((12, 200), candidates=2, sampling=SAMPLED)))
    assert not full.partial

    def cut(steps: int, **more: bool) -> tuple[Creatives | None, FakeEngine]:
        on = engine()
        asked = dataclasses.replace(query((12, 200), candidates=2, sampling=SAMPLED), **more)
        writing = job(on, asked)
        batch = next(writing)
        for _ in range(steps):
            batch = writing.send(on.step(batch))
        try:
            writing.throw(OutOfTime())
        except StopIteration as stop:
            return stop.value, on
        except OutOfTime:
            return None, on
        raise AssertionError("the job goes on")

    result, on = cut(9)
    assert result is not None
    assert result.partial
    assert on.is_clean
    assert without_rank([t for t in result.texts if t.slot == "slot0"]) <= without_rank(full.texts)
    assert [text.text for text in result.texts if text.slot == "slot1"]
    for steps, more in ((0, {}), (9, {"allow_partial": False})):
        nothing, on = cut(steps, **more)
        assert nothing is None
        assert on.is_clean


def test_a_step_is_no_larger_than_the_chunk() -> None:
    on, cut = engine(), engine()
    asked = query((20, 60), candidates=4, sampling=SAMPLED)
    sizes: list[int] = []
    step = cut.step

    def watched(batch: TreeBatch) -> StepOutput:
        sizes.append(len(batch))
        return step(batch)

    cut.step = watched  # type: ignore[method-assign]
    assert run(cut, job(cut, asked, chunk=lambda: 3)).texts == run(on, job(on, asked)).texts
    assert max(sizes) == 3


def test_a_context_that_fills_up_ends_the_text() -> None:
    on = engine()
    on.spec = dataclasses.replace(on.spec, context_length=PROMPT_SIZE + 6)
    result = run(on, job(on, query((500,))))
    assert result.texts
    assert result.texts[0].tokens <= 6
    on.spec = dataclasses.replace(on.spec, context_length=PROMPT_SIZE)
    with pytest.raises(InvalidInput, match="prompt has"):
        run(on, job(on, query()))
    assert on.is_clean


def test_sampling_without_a_seed_is_an_error() -> None:
    on = engine()
    with pytest.raises(InvalidInput, match=r"sampling\.seed"):
        run(on, job(on, query(sampling=Sampling(1.0))))


def test_scores_are_mean_log_probabilities_with_the_stop() -> None:
    tokenizer = FakeTokenizer([b"so", b" good"])
    vocabulary, prompt = parts(tokenizer)
    rows = {0: [0.0, 2.0, -1.0], 1: [0.5, 0.0, 3.0], 2: [4.0, 1.0, 0.0]}
    start = len(prompt.fixed_tokens) + len(prompt.rest_tokens(query(), query().slots[0]))
    on = FakeEngine(3, lambda tokens: np.array(rows[max(0, len(tokens) - start)]))
    text = run(on, generate(on, vocabulary, prompt, query((30,)))).texts[0]
    assert (text.text, text.tokens) == ("so good", 2)
    logs = [np.array(row) - np.log(np.exp(row).sum()) for row in rows.values()]
    assert text.score == pytest.approx((logs[0][1] + logs[1][2] + logs[2][EOS]) / 3, abs=1e-6)


def test_figures_of_the_audience_are_not_figures_of_the_product() -> None:
    from bidtrie.creative.job import facts

    asked = GenerateQuery(
        query().product, (Slot("a", SlotType.HEADLINE, 30),), audience=("aged 25 to 34",), sampling=Sampling()
    )
    assert not any("25" in fact for fact in facts(asked))


def test_an_engine_that_fails_leaves_nothing_behind() -> None:
    on = engine()
    running = job(on, query((40,), candidates=2))
    output = on.step(next(running))
    running.send(output)
    with pytest.raises(EngineError):
        running.throw(EngineError("broken"))
    assert on.is_clean
