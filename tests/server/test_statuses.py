"""What the backend raises, and what the client is told."""

import json
import logging

import grpc
import pytest
from bidtrie.server.logs import JsonFormatter
from bidtrie.v1.creative_pb2 import GenerateRequest
from bidtrie.v1.targeting_pb2 import TargetRequest
from server.conftest import Running
from server.fake_backend import SECRET
from server.statuses import details, failure, violations


def target(title: str) -> TargetRequest:
    return TargetRequest(context={"title": title})


async def test_input_errors_found_deeper(running: Running) -> None:
    found = violations(await failure(running.targeting.Target(target("raise=invalid"))))
    assert found == {"candidates[3]": "is no segment of this catalog"}


async def test_overload_says_when_to_retry(running: Running) -> None:
    error = await failure(running.targeting.Target(target("raise=overloaded")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (retry,) = details(error)
    assert retry.retry_delay.ToNanoseconds() == 250_000_000


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("deadline", grpc.StatusCode.DEADLINE_EXCEEDED),
        ("not_ready", grpc.StatusCode.UNAVAILABLE),
        ("overloaded", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("invalid", grpc.StatusCode.INVALID_ARGUMENT),
        ("defect", grpc.StatusCode.INTERNAL),
    ],
)
async def test_codes_of_unary_and_streaming_calls(running: Running, name: str, code: grpc.StatusCode) -> None:
    request = GenerateRequest(product={"name": f"raise={name}"})
    assert (await failure(running.targeting.Target(target(f"raise={name}")))).code() is code
    assert (await failure(running.creative.Generate(request))).code() is code
    assert (await failure(running.creative.GenerateStream(request).read())).code() is code


async def test_defects_are_logged_and_not_told(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    error = await failure(running.targeting.Target(target("raise=defect and the user's words")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error"
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    line = JsonFormatter().format(record)
    assert "\n" not in line
    logged = json.loads(line)
    assert logged["event"] == "call failed"
    assert logged["method"] == "/bidtrie.v1.Targeting/Target"
    assert logged["error"] == "KeyError"
    assert any("fake_backend.py" in frame and frame.endswith(" _obey") for frame in logged["traceback"])
    assert SECRET not in line
    assert "the user's words" not in line


async def test_while_loading_calls_are_unavailable(loading: Running) -> None:
    for call in (
        loading.targeting.Target(target("t")),
        loading.creative.Generate(GenerateRequest(product={"name": "p"})),
        loading.creative.GenerateStream(GenerateRequest(product={"name": "p"})).read(),
    ):
        error = await failure(call)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "loading" in error.details()
    await loading.server.load(lambda: loading.backend)
    assert (await loading.targeting.Target(target("t"))).segments
