"""What is remembered of requests, and responses put together of two parts."""

import time

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.requests import ScoredSegment, Source, TargetAnswer, Timings
from bidtrie.server.cached_responses import CachedResponses
from bidtrie.server.deadline import Arrival, Budget
from bidtrie.server.target_reader import TargetReader
from bidtrie.server.targeting_messages import target_query, target_response
from bidtrie.v1 import targeting_pb2


def request(**fields) -> targeting_pb2.TargetRequest:
    fields = {
        "request_id": "a",
        "context": {"title": "Bread", "keywords": ["x", "y"]},
        "tmax_ms": 100,
    } | fields
    return targeting_pb2.TargetRequest(**fields)


def test_what_is_read_twice_is_what_is_read_once():
    reader, arrival = TargetReader(), Arrival(1.0, Budget(tmax_share=0.5))
    bid = {"id": "b7", "tmax": 90, "site": {"content": {"title": "Bread"}}}
    for fields in (
        {},
        {"request_id": "b"},
        {"tmax_ms": 7},
        {"top_k": 5, "allow_partial": False, "allow_fallback": False},
        {"context": {"title": "Other", "language": "en-gb"}},
        {"request_id": "", "context": None, "bid_request": bid, "tmax_ms": None},
    ):
        for _ in range(2):
            request_id, query, deadline = reader.read(request(**fields), arrival)
            expected_id, expected = target_query(request(**fields), arrival)
            assert (request_id, deadline) == (expected_id, expected.deadline)
            assert query.deadline is None
            changed = {name: getattr(expected, name) for name in expected.__dataclass_fields__} | {
                "deadline": None
            }
            assert {name: getattr(query, name) for name in query.__dataclass_fields__} == changed


def test_pages_that_differ_in_id_and_time_only_are_one_query():
    reader, arrival = TargetReader(), Arrival(None)
    _, first, _ = reader.read(request(), arrival)
    _, second, _ = reader.read(request(request_id="b", tmax_ms=50), arrival)
    _, other, _ = reader.read(request(context={"title": "Breads", "keywords": ["x", "y"]}), arrival)
    assert first is second
    assert other != first


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "a\0b"}, "request_id"),
        ({"tmax_ms": 0}, "tmax_ms"),
        ({"tmax_ms": 60_001}, "tmax_ms"),
        ({"top_k": 0}, "top_k"),
        ({"context": {"title": " "}}, "context"),
    ],
)
def test_wrong_requests_are_told_every_time(fields, named):
    reader = TargetReader()
    reader.read(request(), Arrival(None))
    for _ in range(2):
        with pytest.raises(InvalidInput) as wrong:
            reader.read(request(**fields), Arrival(None))
        assert wrong.value.violations[0].field == named


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("bidtrie.server.target_reader._MOST", 10)
    monkeypatch.setattr("bidtrie.server.cached_responses._MOST", 10)
    reader, responses, arrival = TargetReader(), CachedResponses(), Arrival(None)
    for i in range(100):
        _, query, _ = reader.read(request(context={"title": f"Page {i}"}), arrival)
        responses.encoded("r", query, answer(i), 1.0, arrival)
        assert len(reader._known) <= 10
        assert len(responses._known) <= 10
    reader.read(request(context={"title": "long " * 300}), arrival)
    assert all(len(key) <= 1024 for key in reader._known)


def answer(i: int = 0) -> TargetAnswer:
    segments = tuple(ScoredSegment(f"s{k}", f"N{k + i}", ("T", f"N{k}"), -k, -2.0) for k in range(3))
    return TargetAnswer(
        segments, Source.BOTH, "c", "v", "m", "mv", "p", plan="full", timings=Timings(1, 2, 3, 4, 5, 6)
    )


def test_a_response_of_two_parts_is_the_whole_one():
    responses = CachedResponses()
    arrival = Arrival(None)
    _, query, _ = TargetReader().read(request(), arrival)
    for i in (0, 0, 1):
        data = responses.encoded("r1", query, answer(i), 2.5, arrival)
        response = targeting_pb2.TargetResponse.FromString(data)
        expected = target_response("r1", answer(i), arrival)
        assert 0 <= response.timings.total_ms <= 1000 * (time.monotonic() - arrival.at)
        assert (response.cache_age_ms, response.timings.nodes) == (2500, 0)
        response.ClearField("timings")
        response.ClearField("cache_age_ms")
        expected.ClearField("timings")
        assert response == expected
