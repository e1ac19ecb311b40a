"""The backend on tiny models: what is ranked, what is refused, and changing models and catalogs under load."""

import asyncio
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from bidtrie.errors import DeadlineExceeded, InvalidInput, Overloaded
from bidtrie.requests import (
    CategoryCode,
    GenerateAnswer,
    GenerateQuery,
    Normalization,
    PageContext,
    Product,
    Ranker,
    Sampling,
    Slot,
    SlotType,
    Source,
    TargetQuery,
    TextDelta,
)
from bidtrie.scheduling.step_shape import StepShape
from bidtrie.serving.runtime import Runtime
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.trie.prior_store import load_prior, prior_path
from bidtrie.trie.prompt import PROMPT_VERSION, fixed_tokens, neutral_contexts, render
from bidtrie.trie.store import catalog_folder
from reference.llama import ReferenceLlama
from reference.tries import brute_force

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = TargetQuery(PageContext(title="Bread for beginners"), ranker=Ranker.LLM, top_k=50, beam_width=64)


async def test_lost_with_its_engine(runtime, monkeypatch):
    assert not runtime.lost()
    engine = runtime._serving.levels[-1].model.engine
    monkeypatch.setattr(type(engine), "lost", property(lambda self: self is engine))
    assert runtime.lost()


def changed(**fields):
    return replace(PAGE, **fields)


def brute(runtime: Runtime, context: PageContext, allowed):
    """Trie-normalised scores from a float64 forward pass of our own, prior included."""
    serving = runtime._serving
    loaded, checkpoint = serving.catalogs["topics"], serving.model.checkpoint
    model, tokenizer = ReferenceLlama(checkpoint), checkpoint.tokenizer
    paths = [tuple(loaded.trie.path_tokens(i).tolist()) for i in range(len(loaded.catalog))]

    def row_after(contexts):
        prompts = [[*fixed_tokens(tokenizer), *render(each, tokenizer, 128)] for each in contexts]

        def row(path):
            rows = []
            for prompt in prompts:
                tokens = [*prompt, *path]
                logits = model.logits(tokens)[-1]
                rows.append(logits - np.logaddexp.reduce(logits))
            return np.mean(rows, axis=0)

        return row

    score = brute_force(paths, allowed, row_after([context]), renormalise=True)
    neutral = brute_force(paths, allowed, row_after(neutral_contexts()), renormalise=True)
    weight = serving.ranker.default_prior_weight
    return {f"s{i}": (score[i] - weight * neutral[i], score[i]) for i in allowed}


async def test_scores_equal_brute_force_in_float64(runtime):
    answer = await runtime.target(PAGE)
    expected = brute(runtime, PAGE.context, range(8))
    assert {s.id: s.score for s in answer.segments} == pytest.approx(
        {key: value[0] for key, value in expected.items()}, abs=1e-3
    )
    assert {s.id: s.log_probability for s in answer.segments} == pytest.approx(
        {key: value[1] for key, value in expected.items()}, abs=1e-3
    )
    assert [s.score for s in answer.segments] == sorted((s.score for s in answer.segments), reverse=True)
    assert answer.source is Source.LLM
    assert (answer.catalog, answer.model, answer.prompt_version) == ("topics", "tiny-a", PROMPT_VERSION)
    assert answer.timings.steps > 0
    assert answer.timings.nodes > answer.timings.prompt_tokens - answer.timings.cached_tokens


async def test_candidates_and_blocked_are_cut_before_scoring(runtime):
    answer = await runtime.target(changed(candidates=("s1", "s4", "s5", "s7"), blocked=("s4",)))
    # s5 lies below s4.
    assert {s.id for s in answer.segments} == {"s1", "s7"}
    expected = brute(runtime, PAGE.context, [1, 7])
    assert {s.id: s.score for s in answer.segments} == pytest.approx(
        {key: value[0] for key, value in expected.items()}, abs=1e-3
    )
    nothing = await runtime.target(changed(candidates=("s4",), blocked=("s3",)))
    assert nothing.segments == ()


@pytest.mark.parametrize("ranker", [Ranker.RETRIEVER, Ranker.LLM, Ranker.BOTH])
async def test_blocking_holds_for_every_ranker(runtime, ranker):
    answer = await runtime.target(changed(ranker=ranker, blocked=("s3",)))
    assert not {s.id for s in answer.segments} & {"s3", "s4", "s5"}


async def test_the_retriever_alone_needs_no_engine(runtime):
    answer = await runtime.target(changed(ranker=Ranker.RETRIEVER))
    assert answer.segments[0].path == ("Food", "Baking", "Bread")
    assert answer.source is Source.RETRIEVER
    assert answer.timings.steps == 0
    assert answer.segments[0].log_probability == 0


async def test_both_adds_the_weighted_retriever_score(runtime):
    both = await runtime.target(changed(ranker=Ranker.BOTH))
    llm = {s.id: s.score for s in (await runtime.target(PAGE)).segments}
    serving = runtime._serving
    scores = serving.catalogs["topics"].retriever.scores("Bread for beginners")
    weight = serving.ranker.retriever_weight
    assert scores.max() > 0
    assert {s.id: s.score for s in both.segments} == pytest.approx(
        {f"s{i}": llm[f"s{i}"] + weight * float(scores[i]) for i in range(8)}, abs=1e-4
    )


async def test_category_codes_of_the_catalogs_taxonomy_become_words(runtime):
    plain = await runtime.target(PAGE)
    coded = await runtime.target(changed(category_codes=(CategoryCode(9, "s7"),)))
    words = await runtime.target(
        changed(context=PageContext(title="Bread for beginners", categories=("Sports > Football",)))
    )
    ignored = await runtime.target(changed(category_codes=(CategoryCode(1, "s7"), CategoryCode(9, "none"))))
    assert coded.segments == words.segments != plain.segments
    assert ignored.segments == plain.segments
    with pytest.raises(InvalidInput, match="bid_request: says nothing"):
        await runtime.target(changed(context=PageContext(), category_codes=(CategoryCode(1, "s7"),)))


async def test_the_prior_weight_and_normalization_of_the_query_hold(runtime):
    raw = await runtime.target(changed(prior_weight=0.0))
    assert all(s.score == s.log_probability for s in raw.segments)
    vocabulary = await runtime.target(changed(prior_weight=0.0, normalization=Normalization.VOCABULARY))
    by_id = {s.id: s.score for s in raw.segments}
    assert all(s.score < by_id[s.id] for s in vocabulary.segments)


async def test_unknown_names_are_named(runtime):
    with pytest.raises(InvalidInput, match=r"catalog: 'none' is not loaded, expected one of: topics, fewer"):
        await runtime.target(changed(catalog="none"))
    with pytest.raises(InvalidInput) as wrong:
        await runtime.target(changed(candidates=("s1", "x"), blocked=("y",)))
    assert [violation.field for violation in wrong.value.violations] == ["candidates[1]", "blocked[0]"]


async def test_the_default_catalog_is_the_first_and_others_have_names(runtime):
    assert (await runtime.target(PAGE)).catalog == "topics"
    assert {s.id for s in (await runtime.target(changed(catalog="fewer"))).segments} == {"s0", "s1", "s2"}


async def test_answers_do_not_depend_on_company(runtime):
    alone = [await runtime.target(changed(context=PageContext(title=f"Page {i}"))) for i in range(6)]
    together = await asyncio.gather(
        *(runtime.target(changed(context=PageContext(title=f"Page {i}"))) for i in range(6)),
        write(runtime, QUERY),
    )
    assert [answer.segments for answer in together[:6]] == [answer.segments for answer in alone]


async def test_a_passed_deadline_is_an_error_unless_something_may_stand_in(runtime):
    late = changed(context=PageContext(title="Bread that comes too late"), deadline=0.0)
    with pytest.raises(Overloaded):
        await runtime.target(replace(late, allow_fallback=False))
    answer = await runtime.target(late)
    assert (answer.fallback, answer.source, answer.plan) == (True, Source.RETRIEVER, "")
    assert answer.segments[0].path == ("Food", "Baking", "Bread")


def slow(runtime: Runtime, monkeypatch, seconds: float) -> None:
    """Every step takes so long, and the cost model knows it."""
    engine = runtime._serving.model.engine
    step = engine.step

    def slower(batch):
        time.sleep(seconds)
        return step(batch)

    monkeypatch.setattr(engine, "step", slower)
    model = runtime._serving.engines.scheduler.levels[0].model
    for nodes in (1, 4, 16, 32) * 100:
        model.learn(StepShape(nodes, 0, 0, 0, 1), seconds)


@pytest.mark.parametrize(("ranker", "source"), [(Ranker.LLM, Source.LLM), (Ranker.BOTH, Source.BOTH)])
async def test_a_search_that_is_cut_is_partial(changing, monkeypatch, ranker, source):
    context = PageContext(title="Bread for those who begin")
    whole = await changing.target(changed(context=context))
    assert (whole.partial, whole.plan) == (False, "full")
    slow(changing, monkeypatch, 0.03)
    for budget in np.arange(0.06, 0.6, 0.04):  # what steps are predicted to take is not exact
        other = replace(PAGE, context=PageContext(title=f"Bread for the quick {budget}"))
        cut = await changing.target(replace(other, ranker=ranker, deadline=time.monotonic() + budget))
        if not cut.fallback:
            break
    assert (cut.partial, cut.source, cut.fallback) == (True, source, False)
    assert cut.plan in ("coarse", "coarsest")
    assert cut.segments
    with pytest.raises((DeadlineExceeded, Overloaded)):
        await changing.target(
            replace(other, allow_partial=False, allow_fallback=False, deadline=time.monotonic() + 0.06)
        )
    stood_in = await changing.target(replace(other, allow_partial=False, deadline=time.monotonic() + 0.06))
    assert (stood_in.fallback, stood_in.partial, stood_in.source) == (True, False, Source.RETRIEVER)


async def test_equal_requests_are_computed_once_and_then_cached(changing):
    steps = []
    changing._serving.engines.scheduler.observer = type(
        "Listener", (RuntimeObserver,), {"step": lambda self, *step: steps.append(step)}
    )()
    page = changed(context=PageContext(title="Bread a hundred times"))
    answers = await asyncio.gather(*(changing.target(page) for _ in range(100)))
    assert all(answer.segments == answers[0].segments for answer in answers)
    together = len(steps)
    assert together == answers[0].timings.steps
    again = await changing.target(page)
    assert again.cache_age_s is not None
    assert (again.segments, again.fallback) == (answers[0].segments, False)
    assert len(steps) == together
    fresh = await changing.target(replace(page, top_k=2))
    assert fresh.cache_age_s is None, "another question"


async def test_a_partial_answer_is_not_cached_and_the_full_one_follows_when_there_is_time(
    changing, monkeypatch
):
    page = changed(context=PageContext(title="Bread, in a hurry"))
    with monkeypatch.context() as slowly:
        slow(changing, slowly, 0.05)
        hurried = await changing.target(replace(page, allow_partial=False, deadline=time.monotonic() + 0.06))
        assert hurried.fallback
    for _ in range(1000):
        answer = await changing.target(replace(page, deadline=time.monotonic() + 1e-3))
        if answer.cache_age_s is not None:
            break
        await asyncio.sleep(0.01)
    assert (answer.partial, answer.fallback, answer.plan) == (False, False, "full")


async def test_a_stale_answer_stands_in_while_it_is_computed_anew(settings):
    stale = settings.model_copy(update={"cache_fresh_seconds": 0.001, "cache_stale_seconds": 60.0})
    runtime = await asyncio.to_thread(Runtime, stale)
    first = await runtime.target(PAGE)
    await asyncio.sleep(0.01)
    second = await runtime.target(PAGE)
    assert (second.fallback, second.segments) == (True, first.segments)
    assert second.cache_age_s >= 0.01
    strict = await runtime.target(replace(PAGE, allow_fallback=False))
    assert strict.cache_age_s is None
    await runtime.close()


async def test_the_ladder_has_cheaper_levels_of_the_model(settings, home):
    two = await asyncio.to_thread(Runtime, settings.model_copy(update={"levels": ("tiny-b",)}))
    plans = two._serving.ranker.plans(PAGE, two._serving.catalogs["topics"])
    assert [plan.name for plan in plans] == [
        "full", "narrow", "coarse", "coarsest", "narrow@1", "coarse@1", "coarsest@1"
    ]  # fmt: skip
    assert [plan.level for plan in plans] == [0] * 4 + [1] * 3
    best = await two.target(PAGE)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(two._serving.ranker, "levels", two._serving.ranker.levels)
    scheduler = two._serving.engines.scheduler
    monkey.setattr(scheduler, "_admit", lambda plans, *rest: plans[4])
    other = await two.target(changed(context=PageContext(title="Bread on level one")))
    monkey.undo()
    assert (best.model, other.model, other.plan) == ("tiny-a", "tiny-b", "narrow@1")
    await two.close()
    with pytest.raises(InvalidInput, match="levels"):
        await asyncio.to_thread(Runtime, settings.model_copy(update={"levels": ("tiny-other",)}))


async def test_what_was_learned_of_costs_is_kept(settings, home, monkeypatch):
    one = await asyncio.to_thread(Runtime, settings)
    await one.target(changed(context=PageContext(title="Learn from this")))
    await one.close()
    files = list((home / "costs").glob("*.json"))
    assert files
    assert not list((home / "costs").glob(".*.new"))
    samples = json.loads(files[0].read_text())["samples"]
    monkeypatch.setattr("bidtrie.serving.cost_files.calibrate", lambda *a, **k: None)
    two = await asyncio.to_thread(Runtime, settings)
    assert two._serving.engines.scheduler.levels[0].model.samples > samples
    await two.close()
    for file in files:
        file.write_text("{")
    three = await asyncio.to_thread(Runtime, settings)
    assert three._serving.engines.scheduler.levels[0].model.samples < samples
    await three.close()


async def test_cancelling_frees_the_engine(runtime):
    before = runtime.status().kv_slots_free
    tasks = [asyncio.create_task(runtime.target(PAGE)) for _ in range(20)]
    await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runtime.target(PAGE)
    while runtime._serving.engines.scheduler.in_flight:
        await asyncio.sleep(0.001)
    await runtime.target(PAGE)
    assert runtime.status().kv_slots_free == before
    assert runtime._serving.users == 0


async def test_more_than_the_queue_holds_is_refused(settings):
    small = await asyncio.to_thread(Runtime, settings.model_copy(update={"max_queue": 2}))
    pages = [changed(context=PageContext(title=f"Page {i}"), allow_fallback=False) for i in range(10)]
    answers = await asyncio.gather(*map(small.target, pages), return_exceptions=True)
    await small.close()
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == 8


QUERY = GenerateQuery(
    Product(name="Kettle", description="Boils in 40 seconds."),
    (Slot("h", SlotType.HEADLINE, 30),),
    candidates=2,
)


async def write(runtime, query) -> tuple[list[TextDelta], GenerateAnswer]:
    items = [item async for item in runtime.generate(query)]
    assert isinstance(items[-1], GenerateAnswer)
    return items[:-1], items[-1]


async def test_texts_keep_their_limits_and_stream_before_the_answer(runtime):
    pieces, answer = await write(
        runtime, replace(QUERY, product=Product(name="Pot", description="Holds 2 litres."))
    )
    assert answer.creatives
    assert all(0 < len(text.text) <= 30 for text in answer.creatives)
    streamed = {}
    for piece in pieces:
        streamed[piece.candidate] = streamed.get(piece.candidate, "") + piece.text
    assert {text.text for text in answer.creatives} <= set(streamed.values())
    assert answer.seed == 0
    assert answer.timings.cached_tokens > 0


async def test_an_unset_seed_is_drawn_and_gives_the_same_again(runtime):
    sampled = GenerateQuery(QUERY.product, QUERY.slots, candidates=3, sampling=Sampling(temperature=1.0))
    _, first = await write(runtime, sampled)
    assert first.seed
    again = GenerateQuery(
        QUERY.product, QUERY.slots, candidates=3, sampling=Sampling(temperature=1.0, seed=first.seed)
    )
    _, second = await write(runtime, again)
    assert second.creatives == first.creatives


async def test_leaving_a_stream_early_ends_the_work(runtime):
    stream = runtime.generate(GenerateQuery(QUERY.product, (Slot("d", SlotType.DESCRIPTION, 400),)))
    await anext(stream)
    await stream.aclose()
    while runtime._serving.engines.scheduler.in_flight:
        await asyncio.sleep(0.001)
    assert runtime._serving.users == 0


async def test_another_model_takes_over_and_running_queries_end_on_the_old_one(changing):
    old = changing._serving
    running = [asyncio.create_task(changing.target(PAGE)) for _ in range(4)]
    await asyncio.sleep(0)
    status = await changing.load_model("tiny-b")
    answers = await asyncio.gather(*running)
    assert (status.name, changing.status().model.name) == ("tiny-b", "tiny-b")
    assert {answer.model for answer in answers} == {"tiny-a"}
    fresh = await changing.target(PAGE)
    assert fresh.model == "tiny-b"
    assert fresh.segments != answers[0].segments
    assert [catalog.name for catalog in changing.status().catalogs] == ["fewer", "topics"]
    await asyncio.get_running_loop().run_in_executor(changing._loader, lambda: None)
    assert not old.engines._thread.is_alive()


async def test_a_model_that_cannot_be_loaded_changes_nothing(runtime, home):
    with pytest.raises(InvalidInput, match=r"'\.\./tiny-b'"):
        await runtime.load_model("../tiny-b")
    with pytest.raises(InvalidInput, match="expected one of: "):
        await runtime.load_model("none")
    assert (await runtime.target(PAGE)).model == "tiny-a"


async def test_a_catalog_is_reloaded_while_queries_run(changing):
    with pytest.raises(InvalidInput, match="expected one of"):
        await changing.load_catalog("none")
    running = [asyncio.create_task(changing.target(PAGE)) for _ in range(4)]
    status = await changing.load_catalog("topics")
    assert (status.name, status.segments, status.is_default) == ("topics", 8, True)
    await asyncio.gather(*running)
    assert (await changing.target(PAGE)).segments == running[0].result().segments


async def test_a_damaged_prior_is_computed_again(runtime, settings):
    serving = runtime._serving
    loaded = serving.catalogs["topics"]
    key = f"{serving.model.engine.spec.model_hash}-{PROMPT_VERSION}"
    folder = catalog_folder("topics")
    path = prior_path(folder, key)
    sound = path.read_bytes()
    for damaged in (sound[:-8] + b"\0" * 8, sound[:100], b""):
        path.write_bytes(damaged)
        assert load_prior(folder, loaded.trie, key) is None
    other = await asyncio.to_thread(Runtime, settings)
    assert (await other.target(PAGE)).segments == (await runtime.target(PAGE)).segments
    await other.close()
    repaired = load_prior(folder, loaded.trie, key)
    assert repaired is not None
    assert np.array_equal(repaired, loaded.priors[0])


async def test_a_creative_that_was_written_is_cached_and_one_drawn_anew_is_not(runtime):
    query = replace(QUERY, product=Product(name="Cup", description="Keeps tea warm."))
    _, first = await write(runtime, query)
    pieces, again = await write(runtime, query)
    assert again.creatives == first.creatives
    assert [(piece.candidate, piece.text) for piece in pieces] == [(t.rank, t.text) for t in first.creatives]
    assert (first.cache_age_s, again.cache_age_s is None) == (None, False)
    drawn = replace(query, sampling=Sampling(temperature=1.0))
    assert [(await write(runtime, drawn))[1].cache_age_s for _ in range(2)] == [None, None]
    seeded = replace(query, sampling=Sampling(temperature=1.0, seed=7))
    assert [(await write(runtime, seeded))[1].cache_age_s is None for _ in range(2)] == [True, False]
