"""Writes ad texts with one model."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from bidtrie.creative.job import generate
from bidtrie.creative.prompt import PROMPT_VERSION, PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.requests import GenerateAnswer, GenerateQuery, TextDelta
from bidtrie.scheduling.batcher import Batcher
from bidtrie.serving.loaded_model import LoadedModel
from bidtrie.serving.timings import timings

_SEED_BITS = 63


@dataclass(frozen=True, slots=True)
class CreativeWriter:
    """Answers creative queries. `prefix` is the engine sequence that holds the prompt's fixed part."""

    model: LoadedModel
    batcher: Batcher
    vocabulary: Vocabulary
    prompt: PromptTemplate
    prefix: int

    async def write(self, query: GenerateQuery) -> AsyncGenerator[TextDelta | GenerateAnswer, None]:
        """Pieces of text as they are written, then the answer."""
        sampling = query.sampling
        if sampling.temperature > 0 and sampling.seed is None:
            query = replace(query, sampling=replace(sampling, seed=secrets.randbits(_SEED_BITS)))
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[TextDelta | None] = asyncio.Queue()

        def on_text(piece: TextDelta | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        future = self.batcher.submit(
            lambda: generate(
                self.model.engine,
                self.vocabulary,
                self.prompt,
                query,
                fixed=self.prefix,
                on_text=on_text,
                step_seconds=lambda: self.batcher.step_seconds,
            ),
            query.deadline,
        )
        try:
            future.add_done_callback(lambda _: on_text(None))
            while (piece := await pieces.get()) is not None:
                yield piece
            outcome = await asyncio.wrap_future(future)
        finally:
            future.cancel()
        written, stats = outcome.result, outcome.stats
        yield GenerateAnswer(
            creatives=written.texts,
            model=self.model.checkpoint.name,
            model_version=self.model.checkpoint.content_hash,
            prompt_version=PROMPT_VERSION,
            seed=query.sampling.seed or 0 if sampling.temperature > 0 else 0,
            partial=written.partial,
            timings=timings(stats, written.prompt_tokens, written.cached_tokens),
        )
