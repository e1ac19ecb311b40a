"""Writes ad texts with one model, or a cheaper level of it where time is short."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from functools import cache

from bidtrie.cache.key import cache_key
from bidtrie.creative.job import Creatives, Speculation, StepCost, generate
from bidtrie.creative.prompt import PROMPT_VERSION, PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.drafts.drafter import Source
from bidtrie.drafts.drafting import Drafting
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.requests import GenerateAnswer, GenerateQuery, TextDelta, Timings
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from bidtrie.serving.answers import Answers, Question
from bidtrie.serving.compression_level import CompressionLevel
from bidtrie.serving.dispatch import Dispatcher
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.serving.timings import timings

_SEED_BITS = 63
#: For what a request will take: characters a token of English text, and tokens of the prompt around the facts.
_CHARACTERS_A_TOKEN, _TOKENS_AROUND = 4, 60

OnText = Callable[[TextDelta], None]


class CreativeWriter:
    """Answers creative queries."""

    def __init__(
        self,
        levels: Sequence[CompressionLevel],
        dispatcher: Dispatcher,
        vocabulary: Vocabulary,
        answers: Answers[GenerateAnswer],
        drafting: Drafting | None = None,
        observer: RuntimeObserver | None = None,
    ) -> None:
        """`drafting`: None: nothing is fed ahead of the texts."""
        self.levels = tuple(levels)
        self.dispatcher = dispatcher
        self.vocabulary = vocabulary
        self.prompt = PromptTemplate(levels[0].model.checkpoint.tokenizer)
        self._answers = answers
        self._drafting = drafting
        self._observer = observer or RuntimeObserver()

    async def write(self, query: GenerateQuery) -> AsyncGenerator[TextDelta | GenerateAnswer, None]:
        """Pieces of text as they are written, then the answer. Texts that were written before are pieces as a whole."""
        sampling = query.sampling
        key = ""
        if sampling.temperature > 0 and sampling.seed is None:
            # Another text every time: nothing to remember.
            query = replace(query, sampling=replace(sampling, seed=secrets.randbits(_SEED_BITS)))
        else:
            key = self._key(query)
        pieces: asyncio.Queue[TextDelta | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def on_text(piece: TextDelta) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        service_class = ServiceClass.PREGENERATION if query.pregeneration else ServiceClass.CREATIVE
        question = Question(
            key=key,
            compute=lambda: self._compute(query, service_class, on_text),
            fill=lambda: self._compute(replace(query, deadline=None), ServiceClass.FILL, lambda piece: None),
            stand_in=lambda: None,
            fallback=query.allow_fallback,
            accepts=lambda answer: query.allow_partial or not answer.partial,
            keeps=lambda answer: not answer.partial and answer.model_version == self._best.content_hash,
        )
        task = asyncio.create_task(self._answers.answer(question))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            answered = await task
        finally:
            task.cancel()
        answer = answered.answer
        if answered.age_s is not None:
            # What it took then is not what it takes now.
            answer = replace(
                answer, cache_age_s=answered.age_s, fallback=answered.fallback, timings=Timings()
            )
            for text in answer.creatives:
                yield TextDelta(text.slot, text.rank, text.text)
        yield answer

    @property
    def _best(self) -> Checkpoint:
        return self.levels[0].model.checkpoint

    def _key(self, query: GenerateQuery) -> str:
        product, sampling = query.product, query.sampling
        return cache_key(
            kind="creative",
            model=self._best.content_hash,
            engine=self.levels[0].model.engine.spec.model_hash,
            prompt=PROMPT_VERSION,
            name=product.name,
            company=product.company,
            industry=product.industry,
            description=product.description,
            offers=product.offers,
            audience=query.audience,
            language=query.language,
            slots=tuple((slot.name, slot.type, slot.max_characters) for slot in query.slots),
            candidates=query.candidates,
            sampling=(sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed),
        )

    async def _compute(
        self, query: GenerateQuery, service_class: ServiceClass, on_text: OnText
    ) -> GenerateAnswer:
        outcome = await self.dispatcher.run(self._plans(query, on_text), query.deadline, service_class)
        written, stats = outcome.result, outcome.stats
        self._observer.creatives_written(stats.steps, written.drafts)
        if self._drafting is not None and not written.partial:
            self._drafting.written(query, written.texts)
        checkpoint = self.levels[stats.level].model.checkpoint
        return GenerateAnswer(
            creatives=written.texts,
            model=checkpoint.name,
            model_version=checkpoint.content_hash,
            prompt_version=PROMPT_VERSION,
            seed=query.sampling.seed or 0 if query.sampling.temperature > 0 else 0,
            partial=written.partial,
            timings=timings(stats, written.prompt_tokens, written.cached_tokens),
        )

    def _plans(self, query: GenerateQuery, on_text: OnText) -> list[Plan[Creatives]]:
        """All candidates on each level, best level first; what does not end in time is cut where that is allowed."""
        # Asked for once a plan is taken: a request that is refused should not wait for them.
        sources = cache(lambda: [] if self._drafting is None else self._drafting.sources(query))
        return [self._plan(query, level, on_text, sources) for level in range(len(self.levels))]

    def _plan(
        self, query: GenerateQuery, level: int, on_text: OnText, sources: Callable[[], list[Source]]
    ) -> Plan[Creatives]:
        on = self.levels[level]
        scheduler = self.dispatcher.scheduler

        return Plan(
            name="full" if level == 0 else f"full@{level}",
            level=level,
            outline=_outline(query, scheduler.chunk(level)),
            make=lambda: generate(
                on.model.engine,
                self.vocabulary,
                self.prompt,
                query,
                fixed=on.creative_prefix,
                on_text=on_text,
                chunk=lambda: scheduler.chunk(level),
                speculation=self._speculation(query, level, sources()),
            ),
            # A text needs some words before it can be cut.
            least=_prefill_steps(query, scheduler.chunk(level)) + 4 if query.allow_partial else None,
        )

    def _speculation(self, query: GenerateQuery, level: int, sources: Sequence[Source]) -> Speculation | None:
        drafter = None if self._drafting is None else self._drafting.drafter(query, sources, level)
        return None if drafter is None else Speculation(drafter, _step_cost(self.dispatcher.scheduler, level))


def _step_cost(scheduler: Scheduler, level: int) -> StepCost:
    """What a step costs a request: what does not depend on its size is shared with the others that are in flight."""
    model = scheduler.levels[level].model

    def cost(shape: StepShape) -> float:
        seconds = model.mean(shape)
        return seconds - model.fixed() * (1.0 - 1.0 / max(1, scheduler.in_flight))

    return cost


def _prompt_tokens(query: GenerateQuery) -> int:
    product = query.product
    texts = (product.name, product.company, product.industry, product.description, *product.offers)
    facts = sum(map(len, (*texts, *query.audience))) // _CHARACTERS_A_TOKEN
    return facts + _TOKENS_AROUND * len(query.slots)


def _prefill_steps(query: GenerateQuery, chunk: int) -> int:
    return -(-_prompt_tokens(query) // chunk)


def _outline(query: GenerateQuery, chunk: int) -> tuple[StepShape, ...]:
    """Prefill in pieces, then a token a step of every candidate, as long as the longest slot."""
    tokens = _prompt_tokens(query)
    rows = len(query.slots) * query.candidates
    prefill = StepShape(min(tokens, chunk), min(tokens, chunk) * tokens // 2, 0, 0, 1)
    decode = StepShape(rows, rows * tokens, rows, 0, 1)
    length = max(slot.max_characters for slot in query.slots) // _CHARACTERS_A_TOKEN + 2
    return (*(prefill,) * _prefill_steps(query, chunk), *(decode,) * length)
