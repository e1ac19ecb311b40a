"""A backend without a model: deterministic answers, delays and failures as a test asks for them.

The title of a context, or the name of a product, may hold commands: `sleep=SECONDS`, `raise=NAME`.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable

from bidtrie.errors import CatalogError, DeadlineExceeded, InvalidInput, ModelError, NotReady, Overloaded
from bidtrie.requests import (
    CatalogStatus,
    CreativeText,
    GenerateAnswer,
    GenerateQuery,
    ModelStatus,
    ScoredSegment,
    Source,
    Status,
    TargetAnswer,
    TargetQuery,
    TextDelta,
    Timings,
)
from bidtrie.server.backend import Backend

WORDS = ("Run", " faster", " in", " these", " shoes")
SECRET = "the secret of a defect"

ERRORS: dict[str, Callable[[], Exception]] = {
    "deadline": lambda: DeadlineExceeded("the deadline passed before the answer was ready"),
    "overloaded": lambda: Overloaded("the queue is full", retry_after_s=0.25),
    "not_ready": lambda: NotReady("the engine is shutting down"),
    "invalid": lambda: InvalidInput.of("candidates[3]", "is no segment of this catalog"),
    "defect": lambda: KeyError(SECRET),
}


class FakeBackend(Backend):
    """Ranks the segments of its one catalog in order of their ids."""

    def __init__(self) -> None:
        self.targets: list[TargetQuery] = []
        self.generates: list[GenerateQuery] = []
        self.running = 0
        self.cancelled = 0
        self.closed = False
        self.is_lost = False
        self.catalogs = ["fake"]
        self.model = "fake-model"

    def lost(self) -> bool:
        return self.is_lost

    async def target(self, query: TargetQuery) -> TargetAnswer:
        self.targets.append(query)
        if query.catalog and query.catalog not in self.catalogs:
            raise InvalidInput.of(
                "catalog", f"{query.catalog!r} is not loaded; loaded: {', '.join(self.catalogs)}"
            )
        await self._obey(query.context.title)
        ids = query.candidates or tuple(f"s{i}" for i in range(60))
        ids = tuple(each for each in ids if each not in query.blocked)
        segments = tuple(
            ScoredSegment(each, f"Name {each}", ("Top", f"Name {each}"), -float(i), -1.0 - i)
            for i, each in enumerate(ids[: query.top_k])
        )
        return TargetAnswer(
            segments, Source.LLM, query.catalog or "fake", "0" * 16, self.model, "1" * 16, "fake-prompt-1",
            timings=Timings(1.0, 2.0, 3, 40, 20, 10),
        )  # fmt: skip

    async def generate(self, query: GenerateQuery) -> AsyncGenerator[TextDelta | GenerateAnswer, None]:
        self.generates.append(query)
        for slot in query.slots:
            for candidate in range(query.candidates):
                for word in WORDS:
                    await self._obey(query.product.name)
                    yield TextDelta(slot.name, candidate, word)
        yield GenerateAnswer(
            tuple(
                CreativeText(slot.name, rank, "".join(WORDS), -0.5 - rank, len(WORDS))
                for slot in query.slots
                for rank in range(query.candidates)
            ),
            self.model, "1" * 16, "fake-prompt-1",
            seed=query.sampling.seed or 0,
        )  # fmt: skip

    async def _obey(self, text: str) -> None:
        sleep = re.search(r"sleep=([0-9.]+)", text)
        error = re.search(r"raise=(\w+)", text)
        self.running += 1
        try:
            await asyncio.sleep(float(sleep[1]) if sleep else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if error:
            raise ERRORS[error[1]]()

    def status(self) -> Status:
        return Status(
            ModelStatus(self.model, "1" * 16, "fake", "none", "none", 1),
            tuple(CatalogStatus(name, "0" * 16, 60, 120, name == "fake") for name in reversed(self.catalogs)),
            1024,
            1000,
        )

    async def load_catalog(self, name: str) -> CatalogStatus:
        if name == "missing":
            raise InvalidInput.of("name", "there is no such catalog")
        if name == "broken":
            raise CatalogError("broken: line 3 has no id")
        self.catalogs.append(name)
        return CatalogStatus(name, "2" * 16, 60, 120, False)

    async def load_model(self, name: str) -> ModelStatus:
        if name == "broken":
            raise ModelError("broken: cut off")
        self.model = name
        return ModelStatus(name, "3" * 16, "fake", "none", "none", 1)

    async def close(self) -> None:
        self.closed = True
