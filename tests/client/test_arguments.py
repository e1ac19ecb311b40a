"""Arguments of the clients that are refused before anything is sent, and names of enums."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from bidtrie.client import AsyncClient, Client
from bidtrie.client.messages import generate_request, target_request
from bidtrie.errors import InvalidInput
from bidtrie.requests import Ranker
from bidtrie.v1 import creative_pb2, targeting_pb2
from bidtrie.v1.creative_pb2 import Product

#: Nothing listens there: a call that is tried ends as UNAVAILABLE.
NOWHERE = "127.0.0.1:1"


def sync(method: str, **arguments: Any) -> None:
    with Client(NOWHERE) as client:
        answer = getattr(client, method)(**arguments)
        if method == "generate_stream":
            next(answer)


def asynchronous(method: str, **arguments: Any) -> None:
    async def call() -> None:
        async with AsyncClient(NOWHERE) as client:
            answer = getattr(client, method)(**arguments)
            await (anext(answer) if method == "generate_stream" else answer)

    asyncio.run(call())


both = pytest.mark.parametrize("call", [sync, asynchronous])


def ranker_of(value: Any) -> int:
    """What a request holds for a `ranker`, whatever else is asked."""
    plain = dict.fromkeys(
        ("title", "description", "language", "app_name", "site_name", "catalog", "request_id"), ""
    )
    lists: dict[str, Any] = dict.fromkeys(("keywords", "categories", "candidates", "blocked"), ())
    unset: dict[str, Any] = dict.fromkeys(
        ("bid_request", "top_k", "tmax_ms", "prior_weight", "beam_width", "allow_partial", "allow_fallback")
    )
    return target_request(
        **plain, **lists, **unset, normalization="trie", search="likely", ranker=value
    ).ranker


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("auto", targeting_pb2.RANKER_AUTO),
        ("retriever", targeting_pb2.RANKER_RETRIEVER),
        ("LLM", targeting_pb2.RANKER_LLM),
        ("both", targeting_pb2.RANKER_BOTH),
        ("RANKER_BOTH", targeting_pb2.RANKER_BOTH),
        (Ranker.RETRIEVER, targeting_pb2.RANKER_RETRIEVER),
        (targeting_pb2.RANKER_LLM, targeting_pb2.RANKER_LLM),
    ],
)
def test_rankers_have_names(value: Any, expected: int) -> None:
    assert ranker_of(value) == expected


def test_every_ranker_of_the_service_is_a_name() -> None:
    assert [ranker_of(each) for each in Ranker] == [
        targeting_pb2.Ranker.Value(f"RANKER_{each.name}") for each in Ranker
    ]


def test_priorities_have_names() -> None:
    request = generate_request(
        product=Product(name="x"),
        audience=(),
        language="",
        slots=(),
        candidates=None,
        sampling=None,
        tmax_ms=None,
        allow_partial=None,
        allow_fallback=None,
        priority="pregeneration",
        request_id="",
    )
    assert request.priority == creative_pb2.PRIORITY_PREGENERATION


@both
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("target", {"ranker": "best"}, "ranker: 'best', expected one of: auto, retriever, llm, both"),
        ("target", {"normalization": ""}, "normalization: '', expected one of: trie, vocabulary"),
        ("generate", {"priority": "now"}, "priority: 'now', expected one of: bid, pregeneration"),
        ("generate_stream", {"priority": "now"}, "priority: 'now', expected one of: bid, pregeneration"),
    ],
)
def test_unknown_names(
    call: Callable[..., None], method: str, arguments: dict[str, Any], message: str
) -> None:
    needed: dict[str, Any] = {"title": "x"} if method == "target" else {"product": Product(name="x")}
    with pytest.raises(InvalidInput) as caught:
        call(method, **needed, **arguments)
    assert str(caught.value) == message


@both
@pytest.mark.parametrize("timeout_ms", [0, -1, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("method", ["target", "generate", "generate_stream", "status"])
def test_a_call_needs_time(call: Callable[..., None], method: str, timeout_ms: float) -> None:
    needed: dict[str, dict[str, Any]] = {"target": {"title": "x"}, "status": {}}
    arguments = needed.get(method, {"product": Product(name="x")})
    with pytest.raises(InvalidInput, match=r"timeout_ms: .*, expected more than 0"):
        call(method, **arguments, timeout_ms=timeout_ms)


@pytest.mark.parametrize("argument", ["keywords", "categories", "candidates", "blocked"])
def test_one_text_is_no_list_of_letters(argument: str) -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(InvalidInput, match=f"{argument}: is one text, 'bread'"),
    ):
        client.target(title="Bread", **{argument: "bread"})


def test_one_audience_is_no_list_of_letters() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidInput, match="audience: is one text"):
        client.generate(product=creative_pb2.Product(company="Kettle"), audience="families")
