"""GenerateRequest -> GenerateQuery, GenerateAnswer -> GenerateResponse. The rules are those in creative.proto."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from bidtrie.requests import GenerateAnswer, GenerateQuery, Product, Sampling, Slot, SlotType, TextDelta
from bidtrie.server.deadline import Arrival
from bidtrie.server.limits import MAX_REQUEST_ID, MAX_TMAX_MS
from bidtrie.server.timing_messages import milliseconds, timings_message
from bidtrie.server.violations import Violations, shown
from bidtrie.v1 import creative_pb2

DEFAULT_LANGUAGE = "en"
MAX_SLOTS = 10
MAX_CANDIDATES = 16
MIN_SLOT_CHARACTERS, MAX_SLOT_CHARACTERS = 5, 500
MAX_TEMPERATURE = 2.0

_TYPES: Mapping[int, SlotType] = MappingProxyType(
    {
        creative_pb2.SLOT_TYPE_UNSPECIFIED: SlotType.HEADLINE,
        creative_pb2.SLOT_TYPE_HEADLINE: SlotType.HEADLINE,
        creative_pb2.SLOT_TYPE_DESCRIPTION: SlotType.DESCRIPTION,
        creative_pb2.SLOT_TYPE_NATIVE_TITLE: SlotType.NATIVE_TITLE,
    }
)
_PRIORITIES = frozenset(
    {creative_pb2.PRIORITY_UNSPECIFIED, creative_pb2.PRIORITY_BID, creative_pb2.PRIORITY_PREGENERATION}
)
_DEFAULT_CHARACTERS: Mapping[SlotType, int] = MappingProxyType(
    {SlotType.HEADLINE: 30, SlotType.DESCRIPTION: 90, SlotType.NATIVE_TITLE: 25}
)


def generate_query(request: creative_pb2.GenerateRequest, arrival: Arrival) -> GenerateQuery:
    """The request's query. Raises InvalidInput with every violation."""
    found = Violations()
    found.text("request_id", request.request_id, MAX_REQUEST_ID)
    product = _product(request.product, found)
    audience = found.texts("audience", request.audience, 10, 200)
    language = found.language("language", request.language) or DEFAULT_LANGUAGE
    slots = _slots(request, found)
    candidates = request.candidates if request.HasField("candidates") else 1
    found.between("candidates", candidates, 1, MAX_CANDIDATES)
    sampling = _sampling(request.sampling, found)
    found.one_of("priority", request.priority, _PRIORITIES)
    tmax_ms = request.tmax_ms if request.HasField("tmax_ms") else None
    if tmax_ms is not None:
        found.between("tmax_ms", tmax_ms, 1, MAX_TMAX_MS, "milliseconds")
    found.raise_if_any()
    return GenerateQuery(
        product=product,
        slots=slots,
        audience=audience,
        language=language,
        candidates=candidates,
        sampling=sampling,
        allow_partial=request.allow_partial if request.HasField("allow_partial") else True,
        allow_fallback=request.allow_fallback if request.HasField("allow_fallback") else True,
        pregeneration=request.priority == creative_pb2.PRIORITY_PREGENERATION,
        deadline=arrival.deadline(tmax_ms, whole=True),
    )


def _product(product: creative_pb2.Product, found: Violations) -> Product:
    if not product.name.strip() and not product.description.strip():
        found.add("product", "must have a name or a description")
    return Product(
        name=found.text("product.name", product.name, 200),
        company=found.text("product.company", product.company, 200),
        industry=found.text("product.industry", product.industry, 200),
        description=found.text("product.description", product.description, 5_000),
        offers=found.texts("product.offers", product.offers, 10, 200),
    )


def _slots(request: creative_pb2.GenerateRequest, found: Violations) -> tuple[Slot, ...]:
    if not request.slots:
        return (Slot("headline", SlotType.HEADLINE, _DEFAULT_CHARACTERS[SlotType.HEADLINE]),)
    if len(request.slots) > MAX_SLOTS:
        found.add("slots", f"must have at most {MAX_SLOTS} entries, has {len(request.slots):,}")
        return ()
    slots: list[Slot] = []
    first_of: dict[str, int] = {}
    for i, slot in enumerate(request.slots):
        name = found.text(f"slots[{i}].name", slot.name, 64, least=1)
        if name and first_of.setdefault(name, i) != i:
            found.add(
                f"slots[{i}].name", f"must be unique, {shown(name)} is the name of slots[{first_of[name]}]"
            )
        found.one_of(f"slots[{i}].type", slot.type, _TYPES)
        kind = _TYPES.get(slot.type, SlotType.HEADLINE)
        characters = slot.max_characters if slot.HasField("max_characters") else _DEFAULT_CHARACTERS[kind]
        found.between(f"slots[{i}].max_characters", characters, MIN_SLOT_CHARACTERS, MAX_SLOT_CHARACTERS)
        slots.append(Slot(name, kind, characters))
    return tuple(slots)


def _sampling(sampling: creative_pb2.Sampling, found: Violations) -> Sampling:
    found.between("sampling.temperature", sampling.temperature, 0, MAX_TEMPERATURE)
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    if not 0 < top_p <= 1 or math.isnan(top_p):
        found.add("sampling.top_p", f"must be over 0 and at most 1, is {top_p}")
    return Sampling(
        temperature=sampling.temperature,
        top_p=top_p,
        top_k=sampling.top_k,
        seed=sampling.seed if sampling.HasField("seed") else None,
    )


def generate_response(
    request_id: str, answer: GenerateAnswer, arrival: Arrival
) -> creative_pb2.GenerateResponse:
    """The response, its total time taken now."""
    return creative_pb2.GenerateResponse(
        request_id=request_id,
        creatives=[
            creative_pb2.CreativeText(
                slot=each.slot, rank=each.rank, text=each.text, score=each.score, tokens=each.tokens
            )
            for each in answer.creatives
        ],
        partial=answer.partial,
        seed=answer.seed,
        model=answer.model,
        model_version=answer.model_version,
        prompt_version=answer.prompt_version,
        timings=timings_message(answer.timings, arrival),
        fallback=answer.fallback,
        cache_age_ms=milliseconds(answer.cache_age_s),
    )


def delta_update(delta: TextDelta) -> creative_pb2.GenerateUpdate:
    """A piece of the stream."""
    return creative_pb2.GenerateUpdate(
        delta=creative_pb2.TextDelta(slot=delta.slot, candidate=delta.candidate, text=delta.text)
    )
