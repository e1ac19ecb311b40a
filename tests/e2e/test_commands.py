"""The commands against a real server on the default model, as processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bidtrie.client import Client
from bidtrie.serving.own_server import Ports
from bidtrie.v1 import targeting_pb2

DATA = Path(__file__).parents[2] / "bench" / "data"


def bidtrie(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bidtrie", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def last_json(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_target_prints_the_response(live_server: Ports) -> None:
    title = ("target", "--title", "How to bake sourdough bread", "--top-k", "3")
    address = ("--target", f"127.0.0.1:{live_server.grpc}", "--catalog", "iab-content")
    answer = last_json(bidtrie(*title, *address, "--json"))
    segments = answer["segments"]
    assert isinstance(segments, list)
    assert len(segments) == 3
    assert segments[0]["path"][0] == "Food & Drink"
    shown = bidtrie(*title, *address)
    assert "Food & Drink" in shown.stdout


def test_target_takes_shortlists_blocked_segments_and_ways_to_search(live_server: Ports) -> None:
    page = ("target", "--title", "How to bake sourdough bread", "--target", f"127.0.0.1:{live_server.grpc}")
    best = last_json(bidtrie(*page, "--json", "--search", "exact"))["segments"][0]["id"]
    others = last_json(bidtrie(*page, "--json", "--blocked", best))["segments"]
    assert best not in [each["id"] for each in others]
    only = last_json(
        bidtrie(*page, "--json", "--candidates", f"{best}, {others[0]['id']}", "--beam-width", "2")
    )
    assert {each["id"] for each in only["segments"]} == {best, others[0]["id"]}
    wrong = bidtrie(*page, "--search", "exact", "--beam-width", "2")
    assert wrong.returncode != 0
    assert "beam_width" in wrong.stderr


def test_target_takes_an_openrtb_request(live_server: Ports, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(
        '{"id": "a1", "tmax": 20000, "site": {"content": {"title": "Sourdough bread", "unheard_of": 1}}}'
    )
    address = ("--target", f"127.0.0.1:{live_server.grpc}")
    answer = last_json(bidtrie("target", "--bid-request", str(file), *address, "--json"))
    assert answer["request_id"] == "a1"
    file.write_text("{")
    wrong = bidtrie("target", "--bid-request", str(file), *address)
    assert wrong.returncode == 2
    assert "--bid-request: is not an OpenRTB BidRequest" in wrong.stderr


def test_creative_keeps_its_limits(live_server: Ports) -> None:
    command = (
        "creative",
        "--company",
        "Kettle",
        "--description",
        "A kettle that boils in 40 seconds",
        "--json",
    )
    slots = ("--slot", "headline:30", "--slot", "description:90")
    answer = last_json(bidtrie(*command, *slots, "--target", f"127.0.0.1:{live_server.grpc}"))
    texts = answer["creatives"]
    assert isinstance(texts, list)
    assert [text["slot"] for text in texts] == ["headline-1", "description-2"]
    assert 0 < len(texts[0]["text"]) <= 30
    assert 0 < len(texts[1]["text"]) <= 90
    wrong = bidtrie(*command, "--slot", "poem")
    assert wrong.returncode == 2
    assert "--slot: 'poem'" in wrong.stderr


def test_errors_are_one_line_without_a_traceback(live_server: Ports) -> None:
    address = ("--target", f"127.0.0.1:{live_server.grpc}")
    for arguments, message in [
        (("target", "--title", "x", "--catalog", "none", *address), "catalog: 'none' is not loaded"),
        (("target", "--title", "x", "--top-k", "0", *address), "top_k"),
        (("target", *address), "context"),
        (("serve", "--grpc-port", "70000"), "--grpc-port"),
        (("eval", "targeting", "--pages", "none.tsv", "--catalog", "iab-content"), "none.tsv"),
    ]:
        done = bidtrie(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr, arguments


def test_eval_targeting_ends_with_every_figure(live_server: Ports) -> None:
    pages = ("--pages", str(DATA / "pages.tsv"), "--catalog", "iab-content", "--limit", "6", "--json")
    figures = last_json(bidtrie("eval", "targeting", *pages, "--target", f"127.0.0.1:{live_server.grpc}"))
    keys = {"tier1_top1", "tier1_top3", "path_top1", "path_top5", "n", "latency_ms_p50", "latency_ms_p95"}
    assert keys <= set(figures)
    assert figures["n"] == 6
    for ranker in ("lexical", "retriever", "llm", "both"):
        part = figures[ranker]
        assert isinstance(part, dict)
        assert keys < set(part)
        for share in ("tier1_top1", "tier1_top3", "path_top1", "path_top5"):
            assert part[f"{share}_low"] <= part[share] <= part[f"{share}_high"]
    compared, calibration = figures["compare"], figures["calibration"]
    assert isinstance(compared, dict)
    assert isinstance(calibration, dict)
    assert set(compared) >= {"both_vs_retriever", "llm_vs_retriever"}
    assert set(calibration) == {"llm", "both"}


def test_the_same_question_gets_the_same_answer_alone_and_in_company(live_server: Ports) -> None:
    from concurrent.futures import ThreadPoolExecutor

    titles = [
        "Sourdough bread",
        "Electric SUV road test",
        "Mortgage rates fall",
        "Night ferry to quiet islands",
    ]
    with Client(f"127.0.0.1:{live_server.grpc}") as client:

        def ask(title: str) -> list[tuple[str, float]]:
            answer = client.target(title=title, top_k=10, ranker=targeting_pb2.RANKER_LLM, timeout_ms=60_000)
            return [(segment.id, segment.score) for segment in answer.segments]

        alone = [ask(title) for title in titles]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, titles * 3))
    assert together == alone * 3


def test_serving_imports_no_torch() -> None:
    code = "import bidtrie.cli.app, bidtrie.serving.runtime, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "target", "creative", "catalog build", "catalog show"),
        *("model fetch", "model show", "eval targeting", "eval creative"),
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = bidtrie(*command.split(), "--help", COLUMNS="200")
    assert done.returncode == 0
    assert f"Example: bidtrie {command}" in done.stdout


def test_a_wrong_model_costs_no_catalog(product_home: Path, tmp_path: Path) -> None:
    lines = tmp_path / "mine.tsv"
    lines.write_text("1\tFood\n2\tFood > Bread\n", encoding="utf-8")
    built = last_json(bidtrie("catalog", "build", "mine", "--from", str(lines), "--json"))
    lines.write_text("1\tCars\n", encoding="utf-8")
    wrong = bidtrie("catalog", "build", "mine", "--from", str(lines), "--model", "none")
    assert wrong.returncode == 2
    assert "none: no such file" in wrong.stderr
    assert last_json(bidtrie("catalog", "show", "mine", "--json"))["version"] == built["version"]
