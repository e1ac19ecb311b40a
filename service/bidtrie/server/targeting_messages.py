"""TargetRequest -> TargetQuery, TargetAnswer -> TargetResponse. The rules are those in targeting.proto."""

from collections.abc import Mapping
from types import MappingProxyType

from bidtrie.bidstream.openrtb import BidContext, read_bid_request
from bidtrie.requests import Normalization, PageContext, Ranker, Search, Source, TargetAnswer, TargetQuery
from bidtrie.server.deadline import Arrival
from bidtrie.server.limits import MAX_REQUEST_ID, MAX_TMAX_MS
from bidtrie.server.timing_messages import milliseconds, timings_message
from bidtrie.server.violations import Violations
from bidtrie.v1 import common_pb2, targeting_pb2

DEFAULT_TOP_K = 3
MAX_TOP_K = 50
MAX_CATALOG_NAME = 64
MAX_SEGMENT_IDS = 10_000
MAX_SEGMENT_ID = 128
MAX_BEAM_WIDTH = 64

_NORMALIZATIONS: Mapping[int, Normalization | None] = MappingProxyType(
    {
        targeting_pb2.NORMALIZATION_UNSPECIFIED: None,
        targeting_pb2.NORMALIZATION_TRIE: Normalization.TRIE,
        targeting_pb2.NORMALIZATION_VOCABULARY: Normalization.VOCABULARY,
    }
)
_RANKERS: Mapping[int, Ranker] = MappingProxyType(
    {
        targeting_pb2.RANKER_AUTO: Ranker.AUTO,
        targeting_pb2.RANKER_RETRIEVER: Ranker.RETRIEVER,
        targeting_pb2.RANKER_LLM: Ranker.LLM,
        targeting_pb2.RANKER_BOTH: Ranker.BOTH,
    }
)
_SEARCHES: Mapping[int, Search | None] = MappingProxyType(
    {
        targeting_pb2.SEARCH_UNSPECIFIED: None,
        targeting_pb2.SEARCH_EXACT: Search.EXACT,
        targeting_pb2.SEARCH_LIKELY: Search.LIKELY,
        targeting_pb2.SEARCH_BEAM: Search.BEAM,
    }
)
_SOURCES: Mapping[Source, common_pb2.Source] = MappingProxyType(
    {
        Source.LLM: common_pb2.SOURCE_LLM,
        Source.RETRIEVER: common_pb2.SOURCE_RETRIEVER,
        Source.BOTH: common_pb2.SOURCE_BOTH,
    }
)


def target_query(request: targeting_pb2.TargetRequest, arrival: Arrival) -> tuple[str, TargetQuery]:
    """The request's id and its query. Raises InvalidInput with every violation."""
    found = Violations()
    bid = BidContext("", None, PageContext(), (), "", 0)
    kind = request.WhichOneof("input")
    if kind == "context":
        bid = _plain_context(request.context, found)
    elif kind == "bid_request":
        bid = read_bid_request(request.bid_request)
        if bid.context.is_empty() and not bid.category_codes:
            found.add(
                "bid_request", "must describe its content: a title, series, genre, keyword, category or name"
            )
    else:
        found.add("input", "must be set: context or bid_request")

    request_id = found.text("request_id", request.request_id, MAX_REQUEST_ID) or bid.id
    catalog = found.text("catalog", request.catalog, MAX_CATALOG_NAME)
    top_k = request.top_k if request.HasField("top_k") else DEFAULT_TOP_K
    found.between("top_k", top_k, 1, MAX_TOP_K)
    tmax_ms = request.tmax_ms if request.HasField("tmax_ms") else bid.tmax_ms
    if tmax_ms is not None:
        field = "tmax_ms" if request.HasField("tmax_ms") else "bid_request.tmax"
        found.between(field, tmax_ms, 1, MAX_TMAX_MS, "milliseconds")
    candidates = found.texts("candidates", request.candidates, MAX_SEGMENT_IDS, MAX_SEGMENT_ID, least=1)
    blocked = found.texts("blocked", request.blocked, MAX_SEGMENT_IDS, MAX_SEGMENT_ID, least=1)
    found.one_of("normalization", request.normalization, _NORMALIZATIONS)
    found.one_of("ranker", request.ranker, _RANKERS)
    if request.HasField("prior_weight"):
        found.between("prior_weight", request.prior_weight, 0, 2)
    if request.HasField("beam_width"):
        found.between("beam_width", request.beam_width, 1, MAX_BEAM_WIDTH)
        if request.search in (targeting_pb2.SEARCH_EXACT, targeting_pb2.SEARCH_LIKELY):
            found.add("beam_width", "must not be set for this search: it is for SEARCH_BEAM")
    found.one_of("search", request.search, _SEARCHES)
    found.raise_if_any()
    return request_id, TargetQuery(
        context=bid.context,
        category_codes=bid.category_codes,
        language=bid.language,
        catalog=catalog,
        top_k=top_k,
        candidates=tuple(dict.fromkeys(candidates)),
        blocked=tuple(dict.fromkeys(blocked)),
        normalization=_NORMALIZATIONS[request.normalization],
        prior_weight=request.prior_weight if request.HasField("prior_weight") else None,
        ranker=_RANKERS[request.ranker],
        search=_SEARCHES[request.search],
        beam_width=request.beam_width if request.HasField("beam_width") else None,
        allow_partial=request.allow_partial if request.HasField("allow_partial") else True,
        allow_fallback=request.allow_fallback if request.HasField("allow_fallback") else True,
        deadline=arrival.deadline(tmax_ms),
    )


def _plain_context(context: targeting_pb2.Context, found: Violations) -> BidContext:
    page = PageContext(
        title=found.text("context.title", context.title, 2_000),
        description=found.text("context.description", context.description, 10_000),
        keywords=found.texts("context.keywords", context.keywords, 100, 200),
        categories=found.texts("context.categories", context.categories, 50, 200),
        app_name=found.text("context.app_name", context.app_name, 200),
        site_name=found.text("context.site_name", context.site_name, 200),
    )
    # Lists that are too long are missing from the page, but they are not nothing.
    if page.is_empty() and not any(text.strip() for text in (*context.keywords, *context.categories)):
        found.add(
            "context",
            "must hold text in one of title, description, keywords, app_name, site_name and categories",
        )
    return BidContext("", None, page, (), found.language("context.language", context.language), 0)


def target_response(request_id: str, answer: TargetAnswer, arrival: Arrival) -> targeting_pb2.TargetResponse:
    """The response, its total time taken now."""
    message = answer_message(answer)
    message.request_id = request_id
    message.timings.CopyFrom(timings_message(answer.timings, arrival))
    return message


def answer_message(answer: TargetAnswer) -> targeting_pb2.TargetResponse:
    """What is the same for whoever gets the answer."""
    return targeting_pb2.TargetResponse(
        segments=[
            targeting_pb2.ScoredSegment(
                id=segment.id,
                name=segment.name,
                path=segment.path,
                score=segment.score,
                log_probability=segment.log_probability,
            )
            for segment in answer.segments
        ],
        source=_SOURCES[answer.source],
        partial=answer.partial,
        catalog=answer.catalog,
        catalog_version=answer.catalog_version,
        model=answer.model,
        model_version=answer.model_version,
        prompt_version=answer.prompt_version,
        fallback=answer.fallback,
        cache_age_ms=milliseconds(answer.cache_age_s),
        plan=answer.plan,
    )
