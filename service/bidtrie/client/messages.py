"""Keyword arguments -> requests, the same for both clients. None leaves the choice to the server."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from bidtrie.errors import InvalidInput
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.v1 import creative_pb2, targeting_pb2


def target_request(
    *,
    title: str,
    description: str,
    keywords: Iterable[str],
    language: str,
    categories: Iterable[str],
    app_name: str,
    site_name: str,
    bid_request: BidRequest | bytes | None,
    catalog: str,
    top_k: int | None,
    tmax_ms: int | None,
    candidates: Iterable[str],
    blocked: Iterable[str],
    normalization: targeting_pb2.Normalization | str,
    prior_weight: float | None,
    ranker: targeting_pb2.Ranker | str,
    search: targeting_pb2.Search | str,
    beam_width: int | None,
    allow_partial: bool | None,
    allow_fallback: bool | None,
    request_id: str,
) -> targeting_pb2.TargetRequest:
    """A request for a plain context, or for a BidRequest (bytes: as it came over the wire), not both."""
    request = targeting_pb2.TargetRequest(
        request_id=request_id,
        catalog=catalog,
        top_k=top_k,
        tmax_ms=tmax_ms,
        candidates=_texts("candidates", candidates),
        blocked=_texts("blocked", blocked),
        normalization=_enum_value("normalization", normalization, targeting_pb2.Normalization),
        prior_weight=prior_weight,
        ranker=_enum_value("ranker", ranker, targeting_pb2.Ranker),
        search=_enum_value("search", search, targeting_pb2.Search),
        beam_width=beam_width,
    )
    if allow_partial is not None:
        request.allow_partial = allow_partial
    if allow_fallback is not None:
        request.allow_fallback = allow_fallback
    context = targeting_pb2.Context(
        title=title,
        description=description,
        keywords=_texts("keywords", keywords),
        language=language,
        categories=_texts("categories", categories),
        app_name=app_name,
        site_name=site_name,
    )
    if bid_request is None:
        request.context.CopyFrom(context)
    elif context.ByteSize():
        raise ValueError("give a plain context or a bid_request, not both")
    elif isinstance(bid_request, bytes):
        request.bid_request.ParseFromString(bid_request)
    else:
        request.bid_request.CopyFrom(bid_request)
    return request


def generate_request(
    *,
    product: creative_pb2.Product,
    audience: Iterable[str],
    language: str,
    slots: Iterable[creative_pb2.Slot],
    candidates: int | None,
    sampling: creative_pb2.Sampling | None,
    tmax_ms: int | None,
    allow_partial: bool | None,
    allow_fallback: bool | None,
    priority: creative_pb2.Priority | str,
    request_id: str,
) -> creative_pb2.GenerateRequest:
    """A request for texts."""
    request = creative_pb2.GenerateRequest(
        request_id=request_id,
        product=product,
        audience=_texts("audience", audience),
        language=language,
        slots=slots,
        candidates=candidates,
        sampling=sampling,
        tmax_ms=tmax_ms,
        priority=_enum_value("priority", priority, creative_pb2.Priority),
    )
    if allow_partial is not None:
        request.allow_partial = allow_partial
    if allow_fallback is not None:
        request.allow_fallback = allow_fallback
    return request


def _texts(argument: str, texts: Iterable[str]) -> Iterable[str]:
    """Several texts; a single one would pass for its letters."""
    if isinstance(texts, str | bytes):
        raise InvalidInput.of(argument, f"is one text, {texts!r}, expected a list of texts")
    return texts


def _enum_value(argument: str, value: Any, kind: EnumTypeWrapper) -> Any:
    """A value of a proto's enum: itself, or by its name, which may lack the enum's own ("llm" for RANKER_LLM)."""
    if not isinstance(value, str):
        return value
    numbers = {name: each.number for name, each in kind.DESCRIPTOR.values_by_name.items()}
    prefix = f"{kind.DESCRIPTOR.name.upper()}_"
    for name in (value, f"{prefix}{value.upper()}"):
        if name in numbers:
            return numbers[name]
    short = [name.removeprefix(prefix).lower() for name in numbers]
    expected = ", ".join(name for name in short if name != "unspecified")
    raise InvalidInput.of(argument, f"{value!r}, expected one of: {expected}")
