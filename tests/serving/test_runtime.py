"""The backend on tiny models: what is ranked, what is refused, and changing models and catalogs under load."""

import asyncio
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
from bidtrie.serving.runtime import Runtime
from bidtrie.trie.prior_store import load_prior, prior_path
from bidtrie.trie.prompt import PROMPT_VERSION, fixed_tokens, neutral_contexts, render
from bidtrie.trie.store import catalog_folder
from reference.llama import ReferenceLlama
from reference.tries import brute_force

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = TargetQuery(PageContext(title="Bread for beginners"), ranker=Ranker.LLM, top_k=50, beam_width=64)


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
    weight = serving.ranker.settings.prior_weight
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
    weight = serving.ranker.settings.retriever_weight
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


async def test_a_passed_deadline_is_an_error(runtime):
    with pytest.raises(DeadlineExceeded):
        await runtime.target(changed(deadline=0.0))


async def test_a_search_that_is_cut_is_partial_and_no_worse_than_the_retriever(runtime):
    batcher = runtime._serving.batcher
    whole = await runtime.target(PAGE)
    for ranker, source in ((Ranker.LLM, Source.LLM), (Ranker.BOTH, Source.RETRIEVER)):
        # Steps seem to take longer than the time that is left, so the search ends with what its first level found.
        batcher._step_seconds = 1e6
        cut = await runtime.target(changed(ranker=ranker, deadline=time.monotonic() + 60))
        assert (cut.partial, cut.source) == (True, source)
        assert 0 < len(cut.segments) < len(whole.segments)
    batcher._step_seconds = 0.0
    assert cut.segments[0].path == ("Food", "Baking", "Bread")
    assert not (await runtime.target(changed(deadline=time.monotonic() + 60))).partial


async def test_cancelling_frees_the_engine(runtime):
    before = runtime.status().kv_slots_free
    tasks = [asyncio.create_task(runtime.target(PAGE)) for _ in range(20)]
    await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runtime.target(PAGE)
    while runtime._serving.batcher.in_flight:
        await asyncio.sleep(0.001)
    await runtime.target(PAGE)
    assert runtime.status().kv_slots_free == before
    assert runtime._serving.users == 0


async def test_more_than_the_queue_holds_is_refused(settings):
    small = await asyncio.to_thread(Runtime, settings.model_copy(update={"max_queue": 2}))
    answers = await asyncio.gather(*(small.target(PAGE) for _ in range(10)), return_exceptions=True)
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
    pieces, answer = await write(runtime, QUERY)
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
    while runtime._serving.batcher.in_flight:
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
    assert not old.batcher._thread.is_alive()


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
    assert np.array_equal(repaired, loaded.prior)
