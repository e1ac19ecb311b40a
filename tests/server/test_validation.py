"""The rules of the protos, one by one, without a server."""

import math
import time
from collections.abc import Callable

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.requests import Normalization, Ranker, SlotType
from bidtrie.server.creative_messages import generate_query
from bidtrie.server.deadline import Arrival
from bidtrie.server.targeting_messages import target_query
from bidtrie.v1.creative_pb2 import GenerateRequest, Slot
from bidtrie.v1.targeting_pb2 import NORMALIZATION_VOCABULARY, RANKER_BOTH, TargetRequest
from google.protobuf.message import Message

NOW = Arrival(None)


def fields(parse: Callable[[], object]) -> list[str]:
    """The fields that are reported as wrong."""
    try:
        parse()
    except InvalidInput as error:
        return [
            violation.field if violation.description else "(no description)" for violation in error.violations
        ]
    return []


def target(**changes: object) -> TargetRequest:
    return TargetRequest(**({"context": {"title": "t"}} | changes))  # type: ignore[arg-type]


def generate(**changes: object) -> GenerateRequest:
    return GenerateRequest(**({"product": {"name": "p"}} | changes))  # type: ignore[arg-type]


TARGET_TABLE: list[tuple[dict[str, object], list[str]]] = [
    ({}, []),
    ({"context": None}, ["input"]),
    ({"context": {}}, ["context"]),
    ({"context": {"title": " \t\n"}}, ["context"]),
    ({"context": {"keywords": ["", " "]}}, ["context"]),
    ({"context": {"keywords": ["", "cars"]}}, []),
    ({"context": {"language": "en"}}, ["context"]),
    ({"context": {"site_name": "News"}}, []),
    ({"context": {"title": "t" * 2_000, "description": "d" * 10_000}}, []),
    ({"context": {"title": "t" * 2_001}}, ["context.title"]),
    ({"context": {"title": "é" * 2_000}}, []),
    ({"context": {"title": "a\0b"}}, ["context.title"]),
    ({"context": {"description": "d" * 10_001}}, ["context.description"]),
    ({"context": {"keywords": ["k"] * 100}}, []),
    ({"context": {"keywords": ["k"] * 101}}, ["context.keywords"]),
    ({"context": {"keywords": ["k", "k" * 201, "\0"]}}, ["context.keywords[1]", "context.keywords[2]"]),
    ({"context": {"categories": ["c"] * 51}}, ["context.categories"]),
    ({"context": {"title": "t", "app_name": "a" * 201}}, ["context.app_name"]),
    ({"context": {"title": "t", "site_name": "a" * 201}}, ["context.site_name"]),
    ({"context": {"title": "t", "language": "klingon"}}, ["context.language"]),
    ({"context": {"title": "t", "language": "qq"}}, ["context.language"]),
    ({"request_id": "r" * 128}, []),
    ({"request_id": "r" * 129}, ["request_id"]),
    ({"catalog": "c" * 65}, ["catalog"]),
    ({"top_k": 1}, []),
    ({"top_k": 50}, []),
    ({"top_k": 0}, ["top_k"]),
    ({"top_k": 51}, ["top_k"]),
    ({"top_k": 10**9}, ["top_k"]),
    ({"tmax_ms": 1}, []),
    ({"tmax_ms": 60_000}, []),
    ({"tmax_ms": 0}, ["tmax_ms"]),
    ({"tmax_ms": -1}, ["tmax_ms"]),
    ({"tmax_ms": 60_001}, ["tmax_ms"]),
    ({"candidates": ["1"] * 10_000}, []),
    ({"candidates": ["1"] * 10_001}, ["candidates"]),
    ({"candidates": ["1", "", "x" * 129]}, ["candidates[1]", "candidates[2]"]),
    ({"blocked": ["1", "a\0"]}, ["blocked[1]"]),
    ({"normalization": 7}, ["normalization"]),
    ({"ranker": 9}, ["ranker"]),
    ({"search": 3, "beam_width": 4}, []),
    ({"search": 1, "beam_width": 4}, ["beam_width"]),
    ({"search": 2, "beam_width": 65}, ["beam_width", "beam_width"]),
    ({"search": 4}, ["search"]),
    ({"prior_weight": 0.0}, []),
    ({"prior_weight": 2.0}, []),
    ({"prior_weight": 2.1}, ["prior_weight"]),
    ({"prior_weight": -0.1}, ["prior_weight"]),
    ({"prior_weight": math.nan}, ["prior_weight"]),
    ({"beam_width": 0}, ["beam_width"]),
    ({"beam_width": 64}, []),
    ({"beam_width": 65}, ["beam_width"]),
    ({"context": None, "bid_request": {"id": "1"}}, ["bid_request"]),
    ({"context": None, "bid_request": {"site": {"cat": ["IAB2"]}}}, []),
    ({"context": None, "bid_request": {"site": {"name": "News"}, "tmax": -5}}, ["bid_request.tmax"]),
    ({"context": None, "bid_request": {"site": {"name": "News"}, "tmax": -5}, "tmax_ms": 5}, []),
    ({"top_k": 0, "tmax_ms": -1, "request_id": "\0"}, ["request_id", "top_k", "tmax_ms"]),
]


@pytest.mark.parametrize(("changes", "expected"), TARGET_TABLE, ids=lambda value: str(value)[:60])
def test_target_rules(changes: dict[str, object], expected: list[str]) -> None:
    assert fields(lambda: target_query(target(**changes), NOW)) == expected


GENERATE_TABLE: list[tuple[dict[str, object], list[str]]] = [
    ({}, []),
    ({"product": None}, ["product"]),
    ({"product": {"name": " "}}, ["product"]),
    ({"product": {"description": "d" * 5_000}}, []),
    ({"product": {"description": "d" * 5_001}}, ["product.description"]),
    ({"product": {"name": "n" * 201, "company": "\0"}}, ["product.name", "product.company"]),
    ({"product": {"name": "n", "offers": ["o"] * 11}}, ["product.offers"]),
    ({"product": {"name": "n", "offers": ["o" * 201]}}, ["product.offers[0]"]),
    ({"audience": ["a"] * 11}, ["audience"]),
    ({"language": "qq"}, ["language"]),
    ({"slots": [{"name": str(i)} for i in range(10)]}, []),
    ({"slots": [{"name": str(i)} for i in range(11)]}, ["slots"]),
    ({"slots": [{"name": "a"}, {"name": "a"}, {"name": ""}]}, ["slots[1].name", "slots[2].name"]),
    ({"slots": [{"name": "a", "type": 9}]}, ["slots[0].type"]),
    ({"slots": [{"name": "a", "max_characters": 4}]}, ["slots[0].max_characters"]),
    ({"slots": [{"name": "a", "max_characters": 501}]}, ["slots[0].max_characters"]),
    ({"candidates": 0}, ["candidates"]),
    ({"candidates": 17}, ["candidates"]),
    ({"sampling": {"temperature": 2.0, "top_p": 1.0, "top_k": 5, "seed": 2**64 - 1}}, []),
    ({"sampling": {"temperature": -0.1}}, ["sampling.temperature"]),
    ({"sampling": {"temperature": math.inf}}, ["sampling.temperature"]),
    ({"sampling": {"temperature": math.nan}}, ["sampling.temperature"]),
    ({"sampling": {"top_p": 0.0}}, ["sampling.top_p"]),
    ({"sampling": {"top_p": 1.1}}, ["sampling.top_p"]),
    ({"sampling": {"top_p": math.nan}}, ["sampling.top_p"]),
    ({"tmax_ms": 0}, ["tmax_ms"]),
    ({"product": None, "candidates": 99, "tmax_ms": -1}, ["product", "candidates", "tmax_ms"]),
]


@pytest.mark.parametrize(("changes", "expected"), GENERATE_TABLE, ids=lambda value: str(value)[:60])
def test_generate_rules(changes: dict[str, object], expected: list[str]) -> None:
    assert fields(lambda: generate_query(generate(**changes), NOW)) == expected


def test_target_query_holds_what_was_asked() -> None:
    request = target(
        request_id="r",
        context={"title": "t", "language": "pt-br"},
        catalog="c",
        top_k=7,
        candidates=["b", "a", "b"],
        blocked=["x", "x"],
        normalization=NORMALIZATION_VOCABULARY,
        prior_weight=0.5,
        ranker=RANKER_BOTH,
        beam_width=4,
    )
    request_id, query = target_query(request, NOW)
    assert request_id == "r"
    assert query.context.title == "t"
    assert (query.language, query.catalog, query.top_k, query.beam_width) == ("pt-BR", "c", 7, 4)
    assert (query.candidates, query.blocked) == (("b", "a"), ("x",))
    assert (query.normalization, query.ranker) == (Normalization.VOCABULARY, Ranker.BOTH)
    assert (query.prior_weight, query.deadline) == (0.5, None)


def test_target_defaults_are_the_servers() -> None:
    _, query = target_query(target(), NOW)
    assert (query.top_k, query.normalization, query.prior_weight) == (3, None, None)
    assert (query.beam_width, query.ranker) == (None, Ranker.AUTO)


def test_bid_request_lends_id_and_tmax() -> None:
    arrival = Arrival(None)
    request = TargetRequest(bid_request={"id": "auction", "tmax": 120, "site": {"name": "News"}})
    request_id, query = target_query(request, arrival)
    assert request_id == "auction"
    assert query.deadline == pytest.approx(arrival.at + 0.12)
    request.request_id, request.tmax_ms = "mine", 50
    request_id, query = target_query(request, arrival)
    assert request_id == "mine"
    assert query.deadline == pytest.approx(arrival.at + 0.05)


def test_slots_have_the_defaults_of_their_type() -> None:
    assert [(s.name, s.type, s.max_characters) for s in generate_query(generate(), NOW).slots] == [
        ("headline", SlotType.HEADLINE, 30)
    ]
    slots = [Slot(name=str(kind), type=kind) for kind in range(4)]  # type: ignore[arg-type]
    assert [s.max_characters for s in generate_query(generate(slots=slots), NOW).slots] == [30, 30, 90, 25]


def test_seed_zero_is_not_unset() -> None:
    assert generate_query(generate(sampling={"seed": 0}), NOW).sampling.seed == 0
    assert generate_query(generate(), NOW).sampling.seed is None


@pytest.mark.parametrize(
    ("grpc_seconds", "tmax_ms", "expected"),
    [(None, None, None), (0.5, None, 0.5), (None, 200, 0.2), (0.5, 200, 0.2), (0.1, 200, 0.1)],
)
def test_deadline_is_the_earlier_one(
    grpc_seconds: float | None, tmax_ms: int | None, expected: float | None
) -> None:
    begin = time.monotonic()
    arrival = Arrival(grpc_seconds)
    deadline = arrival.deadline(tmax_ms)
    if expected is None:
        assert deadline is None
    else:
        assert deadline == pytest.approx(arrival.at + expected)
        assert begin <= arrival.at <= time.monotonic()


def test_every_field_of_the_requests_is_known_here() -> None:
    """A field added to a proto must be validated: this fails until the list below is extended."""

    def names(message: type[Message]) -> set[str]:
        return {field.name for field in message.DESCRIPTOR.fields}

    assert names(TargetRequest) == {
        "request_id", "context", "bid_request", "catalog", "top_k", "tmax_ms", "candidates", "blocked",
        "normalization", "prior_weight", "ranker", "beam_width", "allow_partial", "allow_fallback", "search",
    }  # fmt: skip
    assert names(GenerateRequest) == {
        "request_id", "product", "audience", "language", "slots", "candidates", "sampling", "tmax_ms",
        "allow_partial", "allow_fallback", "priority",
    }  # fmt: skip
