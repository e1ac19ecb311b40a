"""Searches that are run before serving: they teach the scheduler what each plan takes."""

from bidtrie.requests import PageContext, Ranker, TargetQuery
from bidtrie.scheduling.scheduler import Scheduler
from bidtrie.serving.loaded_catalog import LoadedCatalog
from bidtrie.serving.targeting import TargetingRanker

#: As many different words as a page has; what they say does not matter.
_TITLES = (
    "How to read more books this year",
    "Ten places to see in spring",
    "What the new rules mean for you",
)


def warm_up(scheduler: Scheduler, ranker: TargetingRanker, loaded: LoadedCatalog) -> None:
    """Run every plan on every level, alone and together. The scheduler has no thread yet."""
    if ranker.default_ranker(loaded.catalog) is Ranker.RETRIEVER:
        return
    for title in _TITLES:
        for plan in ranker.plans(TargetQuery(PageContext(title=title)), loaded):
            scheduler.submit([plan])
            _run(scheduler)
    for title in (2 * _TITLES)[: scheduler.max_requests]:
        scheduler.submit(ranker.plans(TargetQuery(PageContext(title=title)), loaded)[:1])
    _run(scheduler)


def _run(scheduler: Scheduler) -> None:
    while scheduler.round() is not None:
        pass
