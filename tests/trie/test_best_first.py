"""Best-first search against exhaustive scoring: the same ranking, the same scores, whatever is fed ahead."""

import functools

import numpy as np
import pytest
from bidtrie.requests import Normalization, Search
from bidtrie.scheduling.job import OutOfTime
from bidtrie.trie.bounds import ExactBound, LikelyBound, cumulative_prior
from bidtrie.trie.found import SearchResult
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions
from reference.reference_engine import ReferenceEngine
from reference.tiny_models import random_checkpoint
from reference.tries import RandomTrie, brute_force, random_trie

TRIES = 500


@pytest.fixture(scope="module")
def engine():
    return ReferenceEngine(random_checkpoint(3), max_nodes=48)


class Counted:
    """An engine as the search sees it, which counts what is asked of it."""

    def __init__(self, engine: ReferenceEngine) -> None:
        self.engine = engine
        self.sizes: list[int] = []

    def run(self, job) -> SearchResult:
        try:
            batch = next(job)
            while True:
                self.sizes.append(len(batch))
                batch = job.send(self.engine.step(batch))
        except StopIteration as stop:
            return stop.value


class World:
    """A random trie with a context, a prior, a retriever's scores, and what may be answered; all of it from a seed."""

    def __init__(self, engine: ReferenceEngine, seed: int, segments: int = 16) -> None:
        rng = np.random.default_rng(seed)
        self.engine = engine
        self.made: RandomTrie = random_trie(seed, segments)
        self.prompt = [int(token) for token in rng.integers(1, 240, rng.integers(1, 6))]
        self.normalization = list(Normalization)[seed % 2]
        self.weight = float(rng.choice([0.0, 0.5, 0.8, 1.5]))
        trie = self.made.trie
        self.prior = rng.normal(-3, 2, len(trie)).astype(np.float32)
        self.scores = (rng.random(segments) * (rng.random(segments) < 0.3) * 4).astype(np.float32)
        self.bonus = None if rng.random() < 0.3 else self.scores
        self.candidates = self.blocked = None
        if rng.random() < 0.4:
            self.candidates = sorted(rng.choice(segments, rng.integers(1, segments), replace=False).tolist())
        if rng.random() < 0.4:
            self.blocked = sorted(rng.choice(segments, rng.integers(1, 4), replace=False).tolist())
        self.top_k = int(rng.integers(1, 6))
        self.allowed = None
        if self.candidates is not None or self.blocked is not None:
            self.allowed = trie.allow(self.candidates, self.blocked or ())

    def ask(
        self, method: Search = Search.EXACT, *, ahead: int = 6, **options
    ) -> tuple[SearchResult, list[int]]:
        root = self.engine.open()
        before = self.engine.free_slots()
        chosen = {"top_k": self.top_k, "normalization": self.normalization, "prior_weight": self.weight}
        counted = Counted(self.engine)
        result = counted.run(
            search(
                self.engine,
                self.made.trie,
                root,
                self.prompt,
                SearchOptions(method=method, **(chosen | options)),
                allowed=self.allowed,
                prior=self.prior,
                bonus=self.bonus,
                ahead=lambda: ahead,
            )
        )
        assert self.engine.free_slots() == before, "the search kept nodes or left its sequence open"
        self.engine.close(root)
        return result, counted.sizes

    def segments(self) -> list[int]:
        """What may be answered, told from the catalog alone."""
        every = range(len(self.made.paths)) if self.candidates is None else self.candidates
        gone = {
            below for each in self.blocked or () for below in self.made.catalog.descendants(each).tolist()
        }
        return [segment for segment in every if segment not in gone]

    def exhaustive(self) -> dict[int, float]:
        """Every path's score, from full forward passes."""
        model = self.engine.model

        @functools.cache
        def row(path: tuple[int, ...]) -> np.ndarray:
            logits = model.logits([*self.prompt, *path])[-1]
            return logits - np.logaddexp.reduce(logits)

        renormalise = self.normalization is Normalization.TRIE
        segments = self.segments()
        scores = brute_force(self.made.paths, segments, row, renormalise=renormalise)
        trie = self.made.trie
        if self.weight:
            at = {
                tuple(trie.path_tokens(s)[: d + 1].tolist()): node
                for s in segments
                for d, node in enumerate(trie.path_nodes(s).tolist())
            }

            def neutral(path: tuple[int, ...]) -> np.ndarray:
                row = np.full(256, -np.inf)
                for tokens, node in at.items():
                    if tokens[:-1] == path:
                        row[tokens[-1]] = self.prior[node]
                return row

            taken = brute_force(self.made.paths, segments, neutral, renormalise=renormalise)
            scores = {segment: scores[segment] - self.weight * taken[segment] for segment in segments}
        extra = np.zeros(len(self.made.paths)) if self.bonus is None else self.bonus
        return {segment: score + float(extra[segment]) for segment, score in scores.items()}


def agree(result: SearchResult, scores: dict[int, float], top_k: int, tolerance: float = 1e-5) -> bool:
    ranked = sorted(scores, key=lambda segment: (-scores[segment], segment))[:top_k]
    found = [each.segment for each in result.found]
    return len(found) == len(ranked) and all(
        abs(each.score - scores[each.segment]) <= tolerance
        # Neighbours may swap only where their scores are equal within the tolerance.
        and (each.segment == other or abs(scores[each.segment] - scores[other]) <= 2 * tolerance)
        for each, other in zip(result.found, ranked, strict=True)
    )


def test_exact_search_is_exhaustive_scoring(engine):
    pruned = 0
    for seed in range(TRIES):
        world = World(engine, seed)
        scores = world.exhaustive()
        result, _ = world.ask()
        assert not result.partial
        assert agree(result, scores, world.top_k), seed
        pruned += result.work.pruned
    assert pruned > 200, "nothing was left out: the bound was not needed"


def test_a_bound_that_is_too_low_is_caught(engine, monkeypatch):
    """The negative control."""
    monkeypatch.setattr(
        ExactBound, "__call__", lambda self, nodes: (np.zeros(len(nodes)) - 1.0, np.zeros(len(nodes)))
    )
    wrong = 0
    for seed in range(60):
        world = World(engine, seed)
        wrong += not agree(world.ask()[0], world.exhaustive(), world.top_k)
    assert wrong > 5


def test_what_is_fed_ahead_never_changes_the_answer(engine):
    saved = 0
    for seed in range(80):
        world = World(engine, seed, 40)
        for method in (Search.EXACT, Search.LIKELY):
            one, steps = world.ask(method, ahead=1)
            for ahead in (2, 7, 30):
                other, fewer = world.ask(method, ahead=ahead)
                assert other == one, (seed, method, ahead)
                assert other.work.scored == one.work.scored
                assert other.work.unused >= one.work.unused == 0
            saved += len(steps) - len(fewer)
    assert saved > 80, "feeding ahead saved no steps"


def test_without_a_prior_the_likely_bound_is_exact(engine):
    for seed in range(60):
        world = World(engine, seed)
        world.weight = 0.0
        assert world.ask(Search.LIKELY)[0] == world.ask(Search.EXACT)[0]


def test_a_wider_margin_finds_no_less_and_a_very_wide_one_everything(engine):
    missed = []
    for margin in (-3.0, 0.4, 1.25, 100.0):
        count = 0
        for seed in range(60):
            world = World(engine, seed)
            result, _ = world.ask(Search.LIKELY, margin=margin)
            scores = world.exhaustive()
            # What is found has its own score in any case.
            assert all(abs(each.score - scores[each.segment]) <= 1e-5 for each in result.found)
            count += not agree(result, scores, world.top_k)
        missed.append(count)
    assert missed == sorted(missed, reverse=True)
    assert missed[0] > 0
    assert missed[-1] == 0


def test_a_number_of_branches_is_a_partial_answer(engine):
    for seed in range(30):
        world = World(engine, seed, 40)
        whole, _ = world.ask(Search.LIKELY)
        few, sizes = world.ask(Search.LIKELY, branches=1)
        assert few.work.scored <= 1
        assert len(sizes) <= 1
        assert few.partial == (whole.work.scored > 1)
        if few.partial:
            assert few.found
            assert len({each.segment for each in few.found}) == len(few.found) <= world.top_k
        else:
            assert few == whole


def test_running_out_of_time_gives_what_is_known(engine):
    cut = 0
    for seed in range(30):
        world = World(engine, seed, 40)
        root = engine.open()
        before = engine.free_slots()
        options = SearchOptions(
            world.top_k, method=Search.EXACT, normalization=world.normalization, prior_weight=world.weight
        )
        job = search(
            engine, world.made.trie, root, world.prompt, options,
            allowed=world.allowed, prior=world.prior, bonus=world.bonus, ahead=lambda: 1,
        )  # fmt: skip
        allowed = set(world.segments())
        try:
            batch = next(job)
            for _ in range(2):
                batch = job.send(engine.step(batch))
        except StopIteration:
            pass  # done by then
        else:
            with pytest.raises(StopIteration) as stop:
                job.throw(OutOfTime())
            result = stop.value.value
            assert result.partial
            assert result.found
            assert {each.segment for each in result.found} <= allowed
            cut += 1
        assert engine.free_slots() == before
        engine.close(root)
    assert cut > 10


def test_before_anything_is_scored_nothing_is_known(engine):
    world = World(engine, 1, 40)
    world.allowed = None
    root = engine.open()
    before = engine.free_slots()
    job = search(engine, world.made.trie, root, [5, 6], SearchOptions(3, method=Search.LIKELY))
    next(job)
    with pytest.raises(OutOfTime):
        job.throw(OutOfTime())
    assert engine.free_slots() == before
    engine.close(root)


def test_steps_stay_within_the_chunk_and_closing_gives_everything_back(engine):
    world = World(engine, 3, 40)
    root = engine.open()
    before = engine.free_slots()
    longest = max(map(len, world.made.paths))
    for steps in range(8):
        job = search(
            engine, world.made.trie, root, [7] * 20, SearchOptions(5, method=Search.EXACT),
            chunk=lambda: 6, ahead=lambda: 30,
        )  # fmt: skip
        try:
            batch = next(job)
            for _ in range(steps):
                assert len(batch) <= 6 + longest
                batch = job.send(engine.step(batch))
        except StopIteration:
            break
        job.close()
        assert engine.free_slots() == before
    engine.close(root)


def test_bounds_cover_every_path_below(engine):
    """The exact bound against the largest gain of all paths below a node, one by one."""
    for seed in range(40):
        world = World(engine, seed)
        trie, fold = world.made.trie, world.normalization is Normalization.TRIE
        scoring = Scoring(trie, world.allowed, world.prior, world.weight, fold=fold)
        bound = ExactBound(scoring, world.bonus)
        likely = LikelyBound(
            scoring, None if world.bonus is None else Potential(trie, world.bonus, world.allowed), 1.0
        )
        taken = cumulative_prior(trie, world.prior, world.allowed, fold=fold)
        extra = np.zeros(len(world.made.paths)) if world.bonus is None else world.bonus
        for node in range(1, len(trie)):
            below = [s for s in world.segments() if node in trie.path_nodes(s)]
            if not below:
                continue
            gains = [extra[s] - world.weight * (taken[trie.terminator_of(s)] - taken[node]) for s in below]
            sure, gain = bound(np.array([node], np.int32))
            assert (sure[0], gain[0]) == (pytest.approx(max(gains), abs=1e-6), 0.0)
            sure, gain = likely(np.array([node], np.int32))
            assert sure[0] == pytest.approx(max(extra[s] for s in below), abs=1e-6)
            assert gain[0] > 0 or not world.weight
