"""Ranks the segments of a catalog for one context."""

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from bidtrie.cache.key import cache_key
from bidtrie.engine.tree_batch import Float32
from bidtrie.errors import InvalidInput, Violation
from bidtrie.memo import Memo
from bidtrie.models.serving_defaults import serving_defaults
from bidtrie.requests import (
    Normalization,
    PageContext,
    Ranker,
    ScoredSegment,
    Search,
    Source,
    TargetAnswer,
    TargetQuery,
    Timings,
)
from bidtrie.scheduling.job import Job, Plan
from bidtrie.scheduling.outline import UNKNOWN_LATER, OutlineBook
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from bidtrie.serving.answers import Answered, Answers, Question
from bidtrie.serving.compression_level import CompressionLevel
from bidtrie.serving.dispatch import Dispatcher, Submitted
from bidtrie.serving.loaded_catalog import LoadedCatalog
from bidtrie.serving.prompt_length import PromptLength
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.serving.target_plans import FULL, TargetPlan, target_plans
from bidtrie.serving.timings import timings
from bidtrie.settings import Settings
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.found import SearchResult
from bidtrie.trie.prompt import PROMPT_VERSION, render, retrieval_text
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions

_MOST_PROBLEMS_SHOWN = 20
_MOST_KEYS, _MOST_SERVED = 4096, 64
_NO_TIME = Timings()
#: For models that recommend nothing; chosen on bench/data/pages-dev.tsv for a model that was not tuned.
UNTUNED_PRIOR_WEIGHT, UNTUNED_RETRIEVER_WEIGHT = 0.8, 3.0


class TargetingRanker:
    """Answers targeting queries with one model, or cheaper levels of it where time is short."""

    def __init__(
        self,
        levels: Sequence[CompressionLevel],
        dispatcher: Dispatcher,
        answers: Answers[TargetAnswer],
        settings: Settings,
        observer: RuntimeObserver,
    ) -> None:
        self.levels = tuple(levels)
        self.dispatcher = dispatcher
        self.settings = settings
        self.observer = observer
        self.outlines = OutlineBook()
        self.prompt_length = PromptLength(settings.max_context_tokens)
        self._answers = answers
        self._recommended = recommended = serving_defaults(self.levels[0].model.checkpoint)
        self.default_prior_weight = _first(
            settings.prior_weight, recommended.prior_weight, UNTUNED_PRIOR_WEIGHT
        )
        self.retriever_weight = _first(
            settings.retriever_weight, recommended.retriever_weight, UNTUNED_RETRIEVER_WEIGHT
        )
        self._keys: Memo[TargetQuery, tuple[LoadedCatalog, str]] = Memo(_MOST_KEYS)
        #: By catalog and version: a digest of what does not change from query to query.
        self._served: Memo[tuple[str, str], str] = Memo(_MOST_SERVED)

    async def rank(self, query: TargetQuery, loaded: LoadedCatalog) -> TargetAnswer:
        """Rank the catalog's segments. Raises InvalidInput for unknown segment ids, Overloaded and DeadlineExceeded."""
        ranker = self._ranker(query, loaded)
        request = _Request(self, query, loaded, ranker)
        if ranker is Ranker.RETRIEVER:
            return request.by_retriever()
        question = Question(
            key=self._key(query, loaded),
            compute=request.compute,
            fill=request.fill,
            stand_in=lambda: replace(request.by_retriever(), fallback=True),
            fallback=query.allow_fallback,
            accepts=lambda answer: query.allow_partial or not answer.partial,
            keeps=lambda answer: not answer.partial and answer.plan == FULL,
        )
        return _answered(await self._answers.answer(question))

    @property
    def stand_in_s(self) -> float:
        """Seconds that an answer without the model takes."""
        return self._answers.stand_in_s

    def recall(self, query: TargetQuery, loaded: LoadedCatalog) -> tuple[TargetAnswer, float] | None:
        """A fresh answer from memory, and its age. What was answered before was checked before."""
        if self._ranker(query, loaded) is Ranker.RETRIEVER:
            return None
        return self._answers.peek(self._key(query, loaded))

    def default_ranker(self, catalog: Catalog) -> Ranker:
        """What RANKER_AUTO means for a catalog: the setting's, else what is known to win there."""
        if self.settings.ranker is not None:
            return Ranker(self.settings.ranker)
        # A model that was tuned on one taxonomy adds nothing to the retriever on another: docs/quality.md.
        return Ranker.BOTH if self._recommended.fits(catalog.name, catalog.version) else Ranker.RETRIEVER

    def _ranker(self, query: TargetQuery, loaded: LoadedCatalog) -> Ranker:
        return self.default_ranker(loaded.catalog) if query.ranker is Ranker.AUTO else query.ranker

    def plans(self, query: TargetQuery, loaded: LoadedCatalog) -> list[Plan[SearchResult]]:
        """The plans of a query, best first, for the default ranker."""
        return _Request(self, query, loaded, self.default_ranker(loaded.catalog)).plans

    def _key(self, query: TargetQuery, loaded: LoadedCatalog) -> str:
        """The cache's key. Pages come again and again: the keys of late queries are kept."""
        known = self._keys.get(query)
        if known is not None and known[0] is loaded:
            return known[1]
        key = self._digest(query, loaded)
        self._keys[query] = loaded, key
        return key

    def _digest(self, query: TargetQuery, loaded: LoadedCatalog) -> str:
        context = query.context
        catalog = loaded.catalog.name, loaded.catalog.version
        served = self._served.get(catalog)
        if served is None:
            served = self._served[catalog] = cache_key(
                kind="targeting",
                model=self.levels[0].model.checkpoint.content_hash,
                engine=self.levels[0].model.engine.spec.model_hash,
                catalog=catalog,
                prompt=PROMPT_VERSION,
                context_tokens=self.settings.max_context_tokens,
                retriever_weight=self.retriever_weight,
            )
        return cache_key(
            served=served,
            title=context.title,
            description=context.description,
            keywords=context.keywords,
            categories=context.categories,
            app=context.app_name,
            site=context.site_name,
            codes=tuple((code.taxonomy, code.id) for code in query.category_codes),
            top_k=query.top_k,
            candidates=query.candidates,
            blocked=query.blocked,
            normalization=query.normalization,
            prior=self.prior_weight(query),
            ranker=self._ranker(query, loaded),
            search=self.method(query),
            beam=self.beam_width(query) if self.method(query) is Search.BEAM else None,
        )

    def method(self, query: TargetQuery) -> Search:
        """How the query is searched for."""
        if query.search is not None:
            return query.search
        # A beam over the vocabulary is what others have, to compare with.
        if query.beam_width is not None or query.normalization is Normalization.VOCABULARY:
            return Search.BEAM
        return Search(self.settings.search)

    def beam_width(self, query: TargetQuery) -> int:
        """The query's, else the server's."""
        return query.beam_width or self.settings.beam_width

    def prior_weight(self, query: TargetQuery) -> float:
        """The query's, else the server's, else the model's."""
        return self.default_prior_weight if query.prior_weight is None else query.prior_weight


class _Request:
    """One query on its way to an answer."""

    def __init__(
        self, ranker: TargetingRanker, query: TargetQuery, loaded: LoadedCatalog, by: Ranker
    ) -> None:
        """Raises InvalidInput where the query does not fit the catalog."""
        self.service = ranker
        self.query = query
        self.loaded = loaded
        self.by = by
        candidates, blocked = _indices(query, loaded)
        self.context = _with_category_names(query, loaded)
        if self.context.is_empty():
            expected = (
                "says nothing about the content: expected a title, keywords, a name or known categories"
            )
            raise InvalidInput.of("bid_request", expected)
        self.allowed = loaded.trie.allow(candidates, blocked) if query.candidates or blocked else None

    @cached_property
    def retriever_scores(self) -> Float32:
        return self.loaded.retriever.scores(self.text)

    @cached_property
    def bonus(self) -> Float32 | None:
        """What the retriever adds to each segment's score."""
        if self.by is not Ranker.BOTH:
            return None
        return self.retriever_scores * np.float32(self.service.retriever_weight)

    @cached_property
    def text(self) -> str:
        return retrieval_text(self.context)

    @cached_property
    def prompt(self) -> list[int]:
        """The prompt's tokens, the same for every plan; made when the first plan is chosen."""
        service = self.service
        tokenizer = service.levels[0].model.checkpoint.tokenizer  # all levels have the same
        tokens = render(self.context, tokenizer, service.settings.max_context_tokens)
        service.prompt_length.note(self.text, len(tokens))
        return tokens

    @property
    def stand_in_s(self) -> float:
        """Seconds that the answer without the model takes, where it is welcome."""
        return self.service.stand_in_s if self.query.allow_fallback else 0.0

    def compute(self) -> Coroutine[Any, Any, TargetAnswer]:
        """By the best plan that fits the query's deadline; raises at once where none does."""
        submitted = self.service.dispatcher.submit(
            self.plans, self.query.deadline, ServiceClass.TARGETING, self.stand_in_s
        )
        return self._answer(submitted)

    def fill(self) -> Coroutine[Any, Any, TargetAnswer]:
        """The full answer, when nothing else wants the engine."""
        return self._answer(self.service.dispatcher.submit(self.plans[:1], None, ServiceClass.FILL))

    async def _answer(self, submitted: Submitted[SearchResult]) -> TargetAnswer:
        outcome = await self.service.dispatcher.outcome(submitted)
        result, stats = outcome.result, outcome.stats
        self.service.observer.searched(stats.steps, result.work)
        level = self.service.levels[stats.level]
        catalog = self.loaded.catalog
        cached = level.cached_tokens
        return TargetAnswer(
            segments=tuple(
                ScoredSegment(
                    catalog.segments[found.segment].id,
                    catalog.segments[found.segment].name,
                    catalog.segments[found.segment].path,
                    found.score,
                    found.log_probability,
                )
                for found in result.found
            ),
            source=Source.BOTH if self.by is Ranker.BOTH else Source.LLM,
            catalog=catalog.name,
            catalog_version=catalog.version,
            model=level.model.checkpoint.name,
            model_version=level.model.checkpoint.content_hash,
            prompt_version=PROMPT_VERSION,
            partial=result.partial,
            plan=stats.plan,
            timings=timings(stats, cached + len(self.prompt), cached),
        )

    @property
    def plans(self) -> list[Plan[SearchResult]]:
        """Every plan on the best level first, then all but the full one on each cheaper level."""
        ladder = target_plans(self.service.method(self.query), self.service.beam_width(self.query))
        if not self.query.allow_partial:
            ladder = tuple(plan for plan in ladder if plan.steps is None)
        tokens = self.service.prompt_length.expected(self.text)
        plans: list[Plan[SearchResult]] = []
        for level in range(len(self.service.levels)):
            chunk = self.service.dispatcher.scheduler.chunk(level)
            first = _chain(tokens, min(tokens, chunk), self.service.levels[level].cached_tokens)
            steps = -(-tokens // chunk)
            plans += [
                self._plan(plan, level, first, steps, chunk)
                for plan in ladder[min(level, len(ladder) - 1, 1) :]
            ]
        return plans

    def _plan(
        self, plan: TargetPlan, level: int, first: StepShape, steps: int, chunk: int
    ) -> Plan[SearchResult]:
        """`first` is the shape of each of the `steps` that the prompt takes in pieces of `chunk` tokens."""
        outlines, catalog = self.service.outlines, self.loaded.catalog
        kind = (catalog.name, catalog.version, plan, self.allowed is not None, self.query.normalization)
        later = UNKNOWN_LATER if plan.steps is None else min(plan.steps - 1, UNKNOWN_LATER)

        def learn(shapes: list[StepShape]) -> None:
            outlines.learn(kind, shapes[max(1, -(-len(self.prompt) // chunk)) - 1 :])

        return Plan(
            name=plan.name if level == 0 else f"{plan.name}@{level}",
            level=level,
            outline=(*(first,) * (steps - 1), *outlines.expected(kind, first, later)),
            make=lambda: self._job(plan, level),
            least=steps if self.query.allow_partial else None,
            learn=learn,
        )

    def _job(self, plan: TargetPlan, level: int) -> Job[SearchResult]:
        service, query = self.service, self.query
        on = service.levels[level]
        return search(
            on.model.engine,
            self.loaded.trie,
            on.targeting_prefix,
            self.prompt,
            SearchOptions(
                top_k=query.top_k,
                beam_width=plan.beam_width,
                method=plan.method,
                margin=plan.margin,
                branches=plan.branches,
                normalization=query.normalization or Normalization.TRIE,
                prior_weight=service.prior_weight(query),
                levels=plan.levels,
                allow_partial=query.allow_partial,
            ),
            allowed=self.allowed,
            prior=self.loaded.priors[level],
            bonus=self.bonus,
            chunk=lambda: service.dispatcher.scheduler.chunk(level),
            ahead=lambda: service.dispatcher.scheduler.ahead(level),
        )

    def by_retriever(self) -> TargetAnswer:
        """The retriever's ranking alone."""
        catalog = self.loaded.catalog
        segments = None if self.allowed is None else self.allowed.segments()
        ranked = self.loaded.retriever.shortlist(self.text, self.query.top_k, segments)
        return TargetAnswer(
            segments=tuple(
                ScoredSegment(
                    catalog.segments[i].id, catalog.segments[i].name, catalog.segments[i].path, score
                )
                for i, score in ranked
            ),
            source=Source.RETRIEVER,
            catalog=catalog.name,
            catalog_version=catalog.version,
        )


def _chain(tokens: int, nodes: int, cached: int) -> StepShape:
    """A step of a prompt of some tokens, about the middle of it."""
    return StepShape(nodes, nodes * (cached + (tokens - nodes) // 2), 0, 1, 1)


def _first(*values: float | None) -> float:
    """The first that is set."""
    return next(value for value in values if value is not None)


def _answered(answered: Answered[TargetAnswer]) -> TargetAnswer:
    if answered.age_s is None:
        return answered.answer
    # What it took then is not what it takes now.
    return replace(answered.answer, cache_age_s=answered.age_s, fallback=answered.fallback, timings=_NO_TIME)


def _indices(query: TargetQuery, loaded: LoadedCatalog) -> tuple[list[int] | None, list[int]]:
    """The query's candidates (None: all) and blocked segments as positions in the catalog."""
    problems: list[Violation] = []

    def positions(field: str, ids: Sequence[str]) -> list[int]:
        found = []
        for i, segment in enumerate(ids):
            if segment in loaded.catalog:
                found.append(loaded.catalog.index(segment))
            else:
                expected = f"{segment!r} is not a segment of the catalog {loaded.catalog.name}"
                problems.append(Violation(f"{field}[{i}]", expected))
        return found

    candidates = positions("candidates", query.candidates) if query.candidates else None
    blocked = positions("blocked", query.blocked)
    if problems:
        raise InvalidInput(problems[:_MOST_PROBLEMS_SHOWN])
    return candidates, blocked


def _with_category_names(query: TargetQuery, loaded: LoadedCatalog) -> PageContext:
    """The context with the names of categories that came as codes of the catalog's own taxonomy."""
    names = [
        loaded.catalog.path_text(loaded.catalog.index(code.id))
        for code in query.category_codes
        if code.taxonomy == loaded.catalog.cattax and code.id in loaded.catalog
    ]
    categories = tuple(dict.fromkeys((*query.context.categories, *names)))
    return replace(query.context, categories=categories)
