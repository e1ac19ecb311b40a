"""The search against brute force: every path scored on its own from full forward passes."""

import numpy as np
import pytest
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.requests import Normalization
from bidtrie.scheduling.job import OutOfTime
from bidtrie.trie.found import SearchResult
from bidtrie.trie.prior import neutral_log_probabilities
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions
from reference.reference_engine import ReferenceEngine
from reference.tiny_models import random_checkpoint
from reference.tries import RandomTrie, brute_force, random_trie

PROMPT = [72, 101, 121, 32, 84]
NEUTRALS = [[72, 101, 10], [80, 97, 103, 101, 58]]


@pytest.fixture(scope="module")
def engine():
    return ReferenceEngine(random_checkpoint(3), max_nodes=24)


def run(engine, job):
    """Drive a job as the scheduler does, alone."""
    try:
        batch = next(job)
        while True:
            batch = job.send(engine.step(batch))
    except StopIteration as stop:
        return stop.value


def log_softmax_after(engine, prompt):
    memo = {}

    def row(path):
        if path not in memo:
            tokens = [*prompt, *path]
            logits = engine.model.logits(tokens)[-1]
            memo[path] = logits - np.logaddexp.reduce(logits)
        return memo[path]

    return row


def brute(engine, made: RandomTrie, allowed, normalization, prompt=PROMPT):
    renormalise = normalization is Normalization.TRIE
    return brute_force(made.paths, allowed, log_softmax_after(engine, prompt), renormalise=renormalise)


def ask(
    engine, made: RandomTrie, allowed=None, bonus=None, prior=None, prompt=PROMPT, **options
) -> SearchResult:
    root = engine.open()
    only = None if allowed is None else made.trie.allow(allowed)
    before = engine.free_slots()
    options = SearchOptions(**{"top_k": 1000, "beam_width": 1000} | options)
    result = run(
        engine,
        search(engine, made.trie, root, prompt, options, allowed=only, prior=prior, bonus=bonus),
    )
    assert engine.free_slots() == before, "the search kept nodes or left its sequence open"
    engine.close(root)
    return result


def assert_same(result: SearchResult, expected: dict[int, float], tolerance=1e-5):
    ranked = sorted(expected, key=lambda segment: (-expected[segment], segment))
    got = {found.segment: found.score for found in result.found}
    assert set(got) == set(expected)
    assert max(abs(got[segment] - expected[segment]) for segment in expected) <= tolerance
    order = [found.segment for found in result.found]
    # Neighbours may swap only where their scores are equal within the tolerance.
    assert all(
        a == b or abs(expected[a] - expected[b]) <= 2 * tolerance for a, b in zip(order, ranked, strict=True)
    )


@pytest.mark.parametrize("normalization", Normalization)
@pytest.mark.parametrize("seed", range(4))
def test_an_unbounded_beam_equals_brute_force(engine, seed, normalization):
    made = random_trie(seed, 40)
    everything = range(len(made.paths))
    result = ask(engine, made, normalization=normalization)
    assert not result.partial
    assert_same(result, brute(engine, made, everything, normalization))


@pytest.mark.parametrize("normalization", Normalization)
def test_candidates_and_blocked_segments_cut_both_sides_of_the_normalisation(engine, normalization):
    made = random_trie(5, 40)
    allowed = [0, 3, 4, 11, 12, 13, 30, 39]
    expected = brute(engine, made, allowed, normalization)
    assert_same(ask(engine, made, allowed=allowed, normalization=normalization), expected)
    if normalization is Normalization.TRIE:
        # The control: without the cut the same paths have other scores.
        uncut = brute(engine, made, range(len(made.paths)), normalization)
        assert max(abs(uncut[segment] - expected[segment]) for segment in allowed) > 0.1


def prior_of(engine, made):
    root = engine.open()
    rows = [run(engine, neutral_log_probabilities(engine, made.trie, prompt, root)) for prompt in NEUTRALS]
    engine.close(root)
    return np.mean(rows, axis=0, dtype=np.float64).astype(np.float32)


def test_neutral_log_probabilities_equal_brute_force(engine):
    made = random_trie(6, 60)
    root = engine.open()
    before = engine.free_slots()
    got = run(engine, neutral_log_probabilities(engine, made.trie, PROMPT, root))
    assert engine.free_slots() == before
    assert len(made.trie) > 3 * engine.spec.max_nodes, "the walk must need several steps"
    row = log_softmax_after(engine, PROMPT)
    for segment, path in enumerate(made.paths):
        for depth, node in enumerate(made.trie.path_nodes(segment).tolist()):
            assert got[node] == pytest.approx(row(path[:depth])[path[depth]], abs=1e-5)


@pytest.mark.parametrize("allowed", [None, [1, 2, 8, 9, 20, 21, 22]])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_the_prior_is_renormalised_over_the_same_children(engine, weight, allowed):
    made = random_trie(7, 30)
    segments = range(len(made.paths)) if allowed is None else allowed
    conditional = brute(engine, made, segments, Normalization.TRIE)
    # What is stored is a mean of log-probabilities over the neutral prompts; renormalise that mean.
    rows = [log_softmax_after(engine, prompt) for prompt in NEUTRALS]
    neutral = brute_force(
        made.paths, segments, lambda path: np.mean([row(path) for row in rows], axis=0), renormalise=True
    )
    expected = {segment: conditional[segment] - weight * neutral[segment] for segment in segments}
    result = ask(engine, made, allowed=allowed, prior=prior_of(engine, made), prior_weight=weight)
    assert_same(result, expected)
    by_segment = {found.segment: found.log_probability for found in result.found}
    assert by_segment == pytest.approx(conditional, abs=1e-5)


def test_vocabulary_scores_are_corrected_without_renormalisation(engine):
    made = random_trie(8, 30)
    segments = range(len(made.paths))
    conditional = brute(engine, made, segments, Normalization.VOCABULARY)
    rows = [log_softmax_after(engine, prompt) for prompt in NEUTRALS]
    neutral = brute_force(
        made.paths, segments, lambda path: np.mean([row(path) for row in rows], axis=0), renormalise=False
    )
    expected = {segment: conditional[segment] - neutral[segment] for segment in segments}
    result = ask(
        engine, made, prior=prior_of(engine, made), prior_weight=1.0, normalization=Normalization.VOCABULARY
    )
    assert_same(result, expected)


def test_a_bonus_adds_each_segments_own_and_guides_a_narrow_beam(engine):
    made = random_trie(9, 40)
    segments = range(len(made.paths))
    scores = np.random.default_rng(0).uniform(0, 3, len(made.paths)).astype(np.float32)
    conditional = brute(engine, made, segments, Normalization.TRIE)
    expected = {segment: conditional[segment] + float(scores[segment]) for segment in segments}
    assert_same(ask(engine, made, bonus=scores), expected)
    # A beam of one finds a segment that only a large bonus makes the best.
    worst = min(conditional, key=conditional.__getitem__)
    scores[:] = 0
    scores[worst] = 100
    assert ask(engine, made, bonus=scores, beam_width=1).found[0].segment == worst
    assert ask(engine, made, beam_width=1).found[0].segment != worst


def test_a_blocked_segments_bonus_pulls_nothing(engine):
    made = random_trie(9, 40)
    others = list(range(1, len(made.paths)))
    scores = np.zeros(len(made.paths), np.float32)
    scores[0] = 1e6
    without = ask(engine, made, allowed=others, beam_width=2)
    assert ask(engine, made, allowed=others, beam_width=2, bonus=scores) == without
    assert ask(engine, made, beam_width=2, bonus=scores).found[0].segment == 0


@pytest.mark.parametrize("normalization", Normalization)
def test_beams_return_true_scores_and_wider_ones_find_no_less(engine, normalization):
    made = random_trie(10, 60)
    truth = brute(engine, made, range(len(made.paths)), normalization)
    best = []
    for width in (1, 2, 4, 1000):
        found = ask(engine, made, beam_width=width, normalization=normalization, top_k=50).found
        assert all(each.score == pytest.approx(truth[each.segment], abs=1e-5) for each in found)
        best.append(found[0].score)
    assert best[-1] == pytest.approx(max(truth.values()), abs=1e-5)
    assert best[0] <= best[-1] + 1e-9


def test_top_k_is_the_head_of_the_whole_ranking(engine):
    made = random_trie(11, 40)
    full = ask(engine, made).found
    assert ask(engine, made, top_k=5).found == full[:5]


def test_one_candidate_needs_no_engine_step_and_none_gives_nothing(engine):
    made = random_trie(12, 20)
    steps = []
    engine_step = engine.step
    engine.step = lambda batch: steps.append(batch) or engine_step(batch)
    try:
        only = ask(engine, made, allowed=[7]).found
        assert [(found.segment, found.score) for found in only] == [(7, 0.0)]
        assert ask(engine, made, allowed=[]).found == []
        assert steps == []
    finally:
        del engine.step


def test_long_prompts_are_fed_in_steps_and_change_nothing(engine):
    made = random_trie(13, 20)
    prompt = [int(token) for token in np.random.default_rng(1).integers(0, 250, 61)]
    expected = brute(engine, made, range(len(made.paths)), Normalization.TRIE, prompt)
    assert_same(ask(engine, made, prompt=prompt), expected)


def test_a_shared_prefix_stands_before_the_prompt(engine):
    made = random_trie(13, 20)
    root = engine.open()
    output = engine.step(TreeBatch.chain(PROMPT[:3], root))
    engine.commit(root, output.nodes.tolist())
    options = SearchOptions(top_k=100, beam_width=100)
    result = run(engine, search(engine, made.trie, root, PROMPT[3:], options))
    assert engine.length(root) == 3
    engine.close(root)
    assert_same(result, brute(engine, made, range(len(made.paths)), Normalization.TRIE))


def cut_after(engine, job, steps: int) -> SearchResult:
    """Let time run out before the next step."""
    batch = next(job)
    for _ in range(steps):
        batch = job.send(engine.step(batch))
    with pytest.raises(StopIteration) as stop:
        job.throw(OutOfTime())
    return stop.value.value


def test_time_up_returns_what_is_known_as_partial(engine):
    made = random_trie(14, 60)
    truth = brute(engine, made, range(len(made.paths)), Normalization.TRIE)
    whole = ask(engine, made, top_k=50, beam_width=50)
    root = engine.open()
    before = engine.free_slots()
    options = SearchOptions(top_k=50, beam_width=50)
    for steps in (1, 2, 3):
        result = cut_after(engine, search(engine, made.trie, root, PROMPT, options), steps)
        assert result.partial
        assert 0 < len(result.found) <= len(whole.found)
        assert len({found.segment for found in result.found}) == len(result.found)
        # A finished path has its own score; one that was completed has that of the branch, which can only be higher.
        assert all(found.score >= truth[found.segment] - 1e-5 for found in result.found)
    assert engine.free_slots() == before
    engine.close(root)


def test_a_number_of_levels_is_the_same_as_running_out_of_time_after_them(engine):
    made = random_trie(14, 60)
    root = engine.open()
    for levels in (1, 2):
        options = SearchOptions(top_k=50, beam_width=3)
        cut = cut_after(engine, search(engine, made.trie, root, PROMPT, options), levels)
        assert ask(engine, made, top_k=50, beam_width=3, levels=levels) == cut
    assert not ask(engine, made, beam_width=3, levels=100).partial
    engine.close(root)


def test_branches_that_are_left_are_completed_by_the_bonus_and_else_by_the_prior(engine):
    made = random_trie(14, 60)
    trie = made.trie
    root = ask(engine, made, top_k=50, beam_width=50, levels=1)
    scores = np.zeros(len(made.paths), np.float32)
    chosen = len(made.paths) - 1
    scores[chosen] = 100.0
    best = ask(engine, made, top_k=50, beam_width=50, levels=1, bonus=scores).found[0]
    assert (best.segment, best.score > 50) == (chosen, True)
    found = []
    for seed in (0, 1):
        prior = np.random.default_rng(seed).normal(-5, 2, len(trie)).astype(np.float32)
        by_prior = ask(engine, made, top_k=50, beam_width=50, levels=1, prior=prior)
        assert len(by_prior.found) == len(root.found)
        found.append({each.segment for each in by_prior.found})
    assert found[0] != found[1]


def test_running_out_of_time_before_anything_is_scored_is_told(engine):
    made = random_trie(14, 60)
    root = engine.open()
    before = engine.free_slots()
    for options in (SearchOptions(5, 4), SearchOptions(5, 4, allow_partial=False)):
        job = search(engine, made.trie, root, PROMPT, options)
        batch = next(job)
        if not options.allow_partial:
            job.send(engine.step(batch))
        with pytest.raises(OutOfTime):
            job.throw(OutOfTime())
        assert engine.free_slots() == before
    engine.close(root)


def test_a_step_is_no_larger_than_the_chunk(engine):
    made = random_trie(14, 60)
    root = engine.open()
    whole = ask(engine, made, prompt=PROMPT * 4, beam_width=8)
    job = search(
        engine, made.trie, root, PROMPT * 4, SearchOptions(top_k=1000, beam_width=8), chunk=lambda: 6
    )
    sizes: list[int] = []

    class Watched:
        def step(self, batch):
            sizes.append(len(batch))
            return engine.step(batch)

    assert run(Watched(), job) == whole
    # One hypothesis with the tokens that it has to feed is never cut.
    assert sizes[:3] == [6, 6, 6]
    assert max(sizes) <= 6 + max(len(path) for path in made.paths)
    engine.close(root)


def test_closing_the_job_at_any_point_gives_everything_back(engine):
    made = random_trie(15, 40)
    root = engine.open()
    before = engine.free_slots()
    for steps in range(6):
        job = search(engine, made.trie, root, PROMPT * 8, SearchOptions(top_k=5, beam_width=4))
        batch = next(job)
        for _ in range(steps):
            batch = job.send(engine.step(batch))
        job.close()
        assert engine.free_slots() == before
    engine.close(root)


def test_a_missing_prior_is_a_mistake_of_the_caller(engine):
    made = random_trie(15, 10)
    with pytest.raises(ValueError, match="prior"):
        ask(engine, made, prior_weight=1.0)
