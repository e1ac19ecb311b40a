"""Ranks the segments of a catalog for one context."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import InvalidInput, Violation
from bidtrie.requests import (
    Normalization,
    PageContext,
    Ranker,
    ScoredSegment,
    Source,
    TargetAnswer,
    TargetQuery,
)
from bidtrie.scheduling.batcher import Batcher
from bidtrie.scheduling.job import Job
from bidtrie.serving.loaded_catalog import LoadedCatalog
from bidtrie.serving.loaded_model import LoadedModel
from bidtrie.serving.timings import timings
from bidtrie.settings import Settings
from bidtrie.trie.prompt import PROMPT_VERSION, render, retrieval_text
from bidtrie.trie.search import Bonus, SearchOptions, SearchResult, search

_MOST_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class TargetingRanker:
    """Answers targeting queries with one model. `prefix` is the engine sequence that every prompt continues."""

    model: LoadedModel
    batcher: Batcher
    prefix: int
    cached_tokens: int
    settings: Settings

    async def rank(self, query: TargetQuery, loaded: LoadedCatalog) -> TargetAnswer:
        """Rank the catalog's segments. Raises InvalidInput for unknown segment ids."""
        candidates, blocked = _indices(query, loaded)
        context = _with_category_names(query, loaded)
        if context.is_empty():
            expected = (
                "says nothing about the content: expected a title, keywords, a name or known categories"
            )
            raise InvalidInput.of("bid_request", expected)
        allowed = loaded.trie.allowed(candidates, blocked) if query.candidates or blocked else None
        ranker = Ranker(self.settings.ranker) if query.ranker is Ranker.AUTO else query.ranker
        if ranker is Ranker.RETRIEVER:
            return _by_retriever(query, loaded, context, allowed)
        prompt = render(context, self.model.checkpoint.tokenizer, self.settings.max_context_tokens)
        job = self._job(query, loaded, context, allowed, prompt, with_retriever=ranker is Ranker.BOTH)
        outcome = await asyncio.wrap_future(self.batcher.submit(job, query.deadline))
        result, stats = outcome.result, outcome.stats
        if result.partial and ranker is Ranker.BOTH:
            # A search that was cut knows shallow paths only; the retriever alone knows all of them.
            quick = _by_retriever(query, loaded, context, allowed)
            if quick.segments:
                return replace(quick, partial=True)
        segments = loaded.catalog.segments
        return TargetAnswer(
            segments=tuple(
                ScoredSegment(
                    segments[found.segment].id,
                    segments[found.segment].name,
                    segments[found.segment].path,
                    found.score,
                    found.log_probability,
                )
                for found in result.found
            ),
            source=Source.BOTH if ranker is Ranker.BOTH else Source.LLM,
            catalog=loaded.catalog.name,
            catalog_version=loaded.catalog.version,
            model=self.model.checkpoint.name,
            model_version=self.model.checkpoint.content_hash,
            prompt_version=PROMPT_VERSION,
            partial=result.partial,
            timings=timings(stats, self.cached_tokens + len(prompt), self.cached_tokens),
        )

    def _job(
        self,
        query: TargetQuery,
        loaded: LoadedCatalog,
        context: PageContext,
        allowed: NDArray[np.bool_] | None,
        prompt: list[int],
        *,
        with_retriever: bool,
    ) -> Callable[[], Job[SearchResult]]:
        weight = self.settings.prior_weight if query.prior_weight is None else query.prior_weight
        options = SearchOptions(
            top_k=query.top_k,
            beam_width=query.beam_width or self.settings.beam_width,
            normalization=query.normalization or Normalization.TRIE,
            prior_weight=weight,
            deadline=query.deadline,
        )
        bonus = None
        if with_retriever:
            scores = loaded.retriever.scores(retrieval_text(context))
            every = np.ones(len(loaded.trie), np.bool_) if allowed is None else allowed
            bonus = Bonus(loaded.trie, scores * np.float32(self.settings.retriever_weight), every)
        return lambda: search(
            self.model.engine,
            loaded.trie,
            self.prefix,
            prompt,
            options,
            allowed=allowed,
            prior=loaded.prior,
            bonus=bonus,
            step_seconds=lambda: self.batcher.step_seconds,
        )


def _by_retriever(
    query: TargetQuery, loaded: LoadedCatalog, context: PageContext, allowed: NDArray[np.bool_] | None
) -> TargetAnswer:
    catalog = loaded.catalog
    segments = None
    if allowed is not None:
        segments = np.zeros(len(catalog), np.bool_)
        ends = np.flatnonzero(allowed & (loaded.trie.segment >= 0))
        segments[loaded.trie.segment[ends]] = True
    ranked = loaded.retriever.shortlist(retrieval_text(context), query.top_k, segments)
    return TargetAnswer(
        segments=tuple(
            ScoredSegment(catalog.segments[i].id, catalog.segments[i].name, catalog.segments[i].path, score)
            for i, score in ranked
        ),
        source=Source.RETRIEVER,
        catalog=catalog.name,
        catalog_version=catalog.version,
    )


def _indices(query: TargetQuery, loaded: LoadedCatalog) -> tuple[list[int] | None, list[int]]:
    """The query's candidates (None: all) and blocked segments as positions in the catalog."""
    problems: list[Violation] = []

    def positions(field: str, ids: Sequence[str]) -> list[int]:
        found = []
        for i, segment in enumerate(ids):
            if segment in loaded.catalog:
                found.append(loaded.catalog.index(segment))
            else:
                expected = f"is not a segment of the catalog {loaded.catalog.name}"
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
