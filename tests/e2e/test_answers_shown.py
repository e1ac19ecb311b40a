"""How `bidtrie target` and `bidtrie creative` show an answer, against a server whose answers are scripted."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from bidtrie.cli import main
from bidtrie.v1 import common_pb2, creative_pb2, creative_pb2_grpc, targeting_pb2, targeting_pb2_grpc


class Scripted(targeting_pb2_grpc.TargetingServicer, creative_pb2_grpc.CreativeServicer):
    """Answers whatever it was told to, and keeps the last request."""

    def __init__(self) -> None:
        self.targeting = targeting_pb2.TargetResponse(source=common_pb2.SOURCE_BOTH)
        self.creative = creative_pb2.GenerateResponse()
        self.asked: targeting_pb2.TargetRequest | creative_pb2.GenerateRequest | None = None

    def Target(  # noqa: N802
        self, request: targeting_pb2.TargetRequest, context: grpc.ServicerContext
    ) -> targeting_pb2.TargetResponse:
        self.asked = request
        return self.targeting

    def Generate(  # noqa: N802
        self, request: creative_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> creative_pb2.GenerateResponse:
        self.asked = request
        return self.creative


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, str]]:
    servicer = Scripted()
    server = grpc.server(ThreadPoolExecutor(1))
    targeting_pb2_grpc.add_TargetingServicer_to_server(servicer, server)
    creative_pb2_grpc.add_CreativeServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "150")
        monkeypatch.setattr(sys, "argv", ["bidtrie", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        code = end.value.code
        return code if isinstance(code, int) else 0, shown.out, shown.err

    return command


PRODUCT = ("creative", "--name", "Kettle", "--target")


def test_a_text_from_the_cache_is_told_to_be_one(scripted, run) -> None:
    server, address = scripted
    _, out, _ = run(*PRODUCT, address)
    assert "cache" not in out
    server.creative.cache_age_ms = 1500
    _, out, _ = run(*PRODUCT, address)
    assert "from the cache, 1.5 s old" in out
    server.creative.cache_age_ms = 0
    _, out, _ = run(*PRODUCT, address)
    assert "from the cache, 0.0 s old" in out


def test_texts_that_are_missing_or_old_are_told(scripted, run) -> None:
    server, address = scripted
    server.creative.partial = server.creative.fallback = True
    _, out, _ = run(*PRODUCT, address)
    assert "partial: time ran out, some texts are missing" in out
    assert "fallback: the model had no time, these texts are past theirs" in out


def test_segments_from_the_cache_are_told_to_be_so(scripted, run) -> None:
    server, address = scripted
    server.targeting.cache_age_ms = 2000
    server.targeting.partial = True
    _, out, _ = run("target", "--title", "x", "--target", address)
    assert "from the cache, 2.0 s old" in out
    assert "partial: time ran out before the search was done" in out


def test_brackets_in_texts_and_names_are_shown(scripted, run) -> None:
    server, address = scripted
    server.creative.creatives.add(slot="headline-1", text="Boils [fast] and [/b] quiet")
    _, out, _ = run(*PRODUCT, address)
    assert "Boils [fast] and [/b] quiet" in out
    server.targeting.segments.add(id="[s]", path=["Cars [old]", "Vans"])
    _, out, _ = run("target", "--title", "x", "--target", address)
    assert "[s]" in out
    assert "Cars [old] > Vans" in out


@pytest.mark.parametrize("name", ["auto", "retriever", "llm", "both"])
def test_the_ranker_reaches_the_server(scripted, run, name: str) -> None:
    server, address = scripted
    run("target", "--title", "x", "--ranker", name, "--target", address)
    assert targeting_pb2.Ranker.Name(server.asked.ranker) == f"RANKER_{name.upper()}"


def test_a_product_without_name_and_description_is_refused_by_flag(run) -> None:
    code, _, err = run("creative", "--company", "Kettle", "--target", "127.0.0.1:1")
    assert code == 2
    assert err == "bidtrie: --description: is missing, and so is --name: one of them is required\n"
