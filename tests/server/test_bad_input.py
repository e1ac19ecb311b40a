"""Whatever comes over the socket gets a clear status, and the server keeps answering."""

import random

import grpc
import pytest
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.v1.targeting_pb2 import Context, TargetRequest, TargetResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server.conftest import Running
from server.statuses import failure, violations

TARGET = "/bidtrie.v1.Targeting/Target"
METHODS = (
    TARGET,
    "/bidtrie.v1.Creative/Generate",
    "/bidtrie.v1.Admin/GetStatus",
    "/bidtrie.v1.Admin/LoadCatalog",
    "/bidtrie.v1.Admin/LoadModel",
    "/grpc.health.v1.Health/Check",
)
GOOD = TargetRequest(
    request_id="1", context=Context(title="Best SUVs", keywords=["cars", "suv"]), top_k=5, tmax_ms=500
)


def title_bytes(raw: bytes) -> bytes:
    """A TargetRequest whose title is any bytes at all; at most 120 of them."""
    context = bytes([0x0A, len(raw)]) + raw
    return bytes([0x12, len(context)]) + context


async def answers(running: Running) -> bool:
    """Whether the server still answers a good request."""
    response = await running.targeting.Target(GOOD)
    return len(response.segments) == 5


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (GOOD.SerializeToString()[:-1], "cut off"),
        (GOOD.SerializeToString()[:7], "cut off"),
        (b"\xff" * 20, "corrupt"),
        (b"\x07", "corrupt"),
        (title_bytes(b"\xed\xa0\x80"), "UTF-8"),
        (title_bytes(b"lone \xed\xb0\x80 surrogate"), "UTF-8"),
        (title_bytes(b"\xc3"), "UTF-8"),
        (title_bytes(b"\xf5\x80\x80\x80"), "UTF-8"),
    ],
)
async def test_bytes_that_are_no_request(running: Running, raw: bytes, what: str) -> None:
    error = await failure(running.channel.unary_unary(TARGET)(raw))
    assert what in violations(error)[""]
    assert await answers(running)


@pytest.mark.parametrize("method", METHODS)
async def test_junk_is_the_clients_fault_everywhere(running: Running, method: str) -> None:
    error = await failure(running.channel.unary_unary(method)(b"\xff" * 20))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_junk_on_streams(running: Running) -> None:
    call = running.channel.unary_stream("/bidtrie.v1.Creative/GenerateStream")(b"\xff")
    assert (await failure(call.read())).code() is grpc.StatusCode.INVALID_ARGUMENT
    reflection = running.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )(iter([b"\xff"]))
    assert (await failure(reflection.read())).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await answers(running)


async def test_a_well_formed_title_passes_the_hand_made_encoding(running: Running) -> None:
    """The negative control of the table above."""
    raw = await running.channel.unary_unary(TARGET)(title_bytes("é\U0001f600".encode()))
    assert len(TargetResponse.FromString(raw).segments) == 3


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"top_k": 0}, "top_k", "1 to 50, is 0"),
        ({"top_k": 10**9}, "top_k", "1 to 50, is 1,000,000,000"),
        ({"tmax_ms": -1}, "tmax_ms", "1 to 60,000 milliseconds, is -1"),
        ({"context": {"title": "x" * 1_000_000}}, "context.title", "2,000 characters, has 1,000,000"),
        ({"context": {"title": "a\0b"}}, "context.title", "NUL"),
        ({"context": {"title": "t", "language": "tlh-Klingon!"}}, "context.language", "BCP 47"),
        ({"context": {"title": "t", "language": "qq"}}, "context.language", "ISO 639"),
        ({"catalog": "no-such"}, "catalog", "loaded: fake"),
        ({"context": None}, "input", "context or bid_request"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_wrong_fields_are_named(
    running: Running, changes: dict[str, object], field: str, said: str
) -> None:
    request = TargetRequest(**({"context": {"title": "t"}} | changes))  # type: ignore[arg-type]
    found = violations(await failure(running.targeting.Target(request)))
    assert set(found) == {field}
    assert said in found[field]
    assert await answers(running)


async def test_all_violations_are_told_at_once(running: Running) -> None:
    request = TargetRequest(top_k=0, tmax_ms=-1, beam_width=99, request_id="x" * 200)
    error = await failure(running.targeting.Target(request))
    assert set(violations(error)) == {"input", "request_id", "top_k", "tmax_ms", "beam_width"}
    assert "top_k: must be 1 to 50" in error.details()


async def test_thousands_of_violations_fit_into_the_trailers(running: Running) -> None:
    request = TargetRequest(context={"title": "t"}, candidates=["\0"] * 10_000)
    found = violations(await failure(running.targeting.Target(request)))
    assert "candidates[0]" in found
    assert found[""].startswith("and 9,")


async def test_a_message_over_the_limit(running: Running) -> None:
    request = TargetRequest(context={"title": "x" * (2 << 20)})
    error = await failure(running.targeting.Target(request))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert await answers(running)


async def test_unknown_methods(running: Running) -> None:
    for method in ("/bidtrie.v1.Targeting/Nope", "/nobody.Knows/This", "/x"):
        error = await failure(running.channel.unary_unary(method)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


BID = BidRequest(
    id="auction",
    imp=[{"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.5}],
    site={"name": "News", "domain": "example.com", "pagecat": ["IAB2"], "content": {"title": "SUVs", "genre": "Cars"}},
    device={"ua": "agent", "ip": "192.0.2.1"},
    tmax=120,
)  # fmt: skip
BAD_STATUSES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def mutated(message: bytes, rng: random.Random) -> bytes:
    """The message with a few bytes changed, dropped, doubled or added, or cut off."""
    raw = bytearray(message)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        match rng.randrange(5):
            case 0 if at < len(raw):
                raw[at] = rng.randrange(256)
            case 1 if at < len(raw):
                raw[at] ^= 1 << rng.randrange(8)
            case 2:
                raw[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                del raw[at : at + rng.randint(1, 8)]
            case _:
                raw[at:at] = raw[at : at + 20]
    return bytes(raw)


async def test_mutated_requests_never_break_the_server(running: Running) -> None:
    rng = random.Random(7)
    seeds = (
        GOOD.SerializeToString(),
        TargetRequest(bid_request=BID, candidates=["1", "2"], prior_weight=1).SerializeToString(),
    )
    call = running.channel.unary_unary(TARGET)
    codes = []
    for _ in range(800):
        try:
            await call(mutated(rng.choice(seeds), rng), timeout=5)
            codes.append(grpc.StatusCode.OK)
        except grpc.aio.AioRpcError as error:
            codes.append(error.code())
    assert not BAD_STATUSES & set(codes)
    # Both ways are taken: the mutations are neither all harmless nor all fatal.
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= set(codes)
    assert await answers(running)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=300), method=st.sampled_from(METHODS))
async def test_random_bytes_never_break_the_server(running: Running, raw: bytes, method: str) -> None:
    call = running.channel.unary_unary(method)(raw, timeout=5)
    assert await call.code() not in BAD_STATUSES
