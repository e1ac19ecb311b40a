"""The requests that are sent, as bytes."""

from collections.abc import Iterator
from itertools import chain, cycle, islice

import numpy as np

from bidtrie.evaluation.pages import read_pages
from bidtrie.load.options import Call, LoadOptions, Priority
from bidtrie.load.words import DISTINCT, distinct_words
from bidtrie.requests import PageContext, Ranker
from bidtrie.v1 import creative_pb2, targeting_pb2

# New requests made before the run, at about 100 bytes each; a longer run makes the rest as it goes.
_MADE_AHEAD = 200_000

_RANKERS = {
    Ranker.AUTO: targeting_pb2.RANKER_AUTO,
    Ranker.RETRIEVER: targeting_pb2.RANKER_RETRIEVER,
    Ranker.LLM: targeting_pb2.RANKER_LLM,
    Ranker.BOTH: targeting_pb2.RANKER_BOTH,
}

_PRIORITIES = {
    Priority.BID: creative_pb2.PRIORITY_BID,
    Priority.PREGENERATION: creative_pb2.PRIORITY_PREGENERATION,
}


def make_bodies(options: LoadOptions, count: int, random: np.random.Generator) -> Iterator[bytes]:
    """At least `count` serialized requests. Raises InvalidInput where the pages cannot be read."""
    distinct = _distinct(options, random)
    if options.repeat is not None:
        return _by_zipf([*islice(distinct, options.repeat)], count, random)
    if options.pages is not None:
        return distinct
    return chain([*islice(distinct, min(count, _MADE_AHEAD))], distinct)


def _by_zipf(pool: list[bytes], count: int, random: np.random.Generator) -> Iterator[bytes]:
    """Draws from the pool; the k-th is 1/k times as likely as the first."""
    weights = 1.0 / np.arange(1, len(pool) + 1)
    ranks = random.choice(len(pool), size=count, p=weights / weights.sum())
    return map(pool.__getitem__, ranks.tolist())


def _distinct(options: LoadOptions, random: np.random.Generator) -> Iterator[bytes]:
    """Serialized requests without end, those of pages in turn. Concatenated messages of one type merge when parsed."""
    words = distinct_words(int(random.integers(DISTINCT)))
    if options.call is Call.GENERATE:
        shared = _generate_settings(options).SerializeToString()
        return (shared + _generate_request(each).SerializeToString() for each in words)
    shared = _target_settings(options).SerializeToString()
    if options.pages is not None:
        pages = [page.context for page in read_pages(options.pages)]
        return cycle([shared + _target_request(context).SerializeToString() for context in pages])
    contexts = (PageContext(title=" ".join(each).capitalize()) for each in words)
    return (shared + _target_request(context).SerializeToString() for context in contexts)


def _target_request(context: PageContext) -> targeting_pb2.TargetRequest:
    fields = targeting_pb2.Context(
        title=context.title,
        description=context.description,
        keywords=context.keywords,
        app_name=context.app_name,
    )
    return targeting_pb2.TargetRequest(context=fields)


def _target_settings(options: LoadOptions) -> targeting_pb2.TargetRequest:
    request = targeting_pb2.TargetRequest(
        catalog=options.catalog,
        top_k=options.top_k,
        ranker=_RANKERS[options.ranker],
        tmax_ms=options.tmax_ms,
    )
    _forbid(request, options)
    return request


def _generate_request(words: list[str]) -> creative_pb2.GenerateRequest:
    name, company, *facts = words
    product = creative_pb2.Product(
        name=name.capitalize(),
        company=f"{company.capitalize()} & Co",
        description=f"Made for {', '.join(facts[:-1])} and {facts[-1]}",
    )
    return creative_pb2.GenerateRequest(product=product)


def _generate_settings(options: LoadOptions) -> creative_pb2.GenerateRequest:
    request = creative_pb2.GenerateRequest(tmax_ms=options.tmax_ms)
    if options.priority is not None:
        request.priority = _PRIORITIES[options.priority]
    _forbid(request, options)
    return request


def _forbid(
    request: targeting_pb2.TargetRequest | creative_pb2.GenerateRequest, options: LoadOptions
) -> None:
    """Lesser answers are allowed unless a request says otherwise."""
    if not options.allow_partial:
        request.allow_partial = False
    if not options.allow_fallback:
        request.allow_fallback = False
