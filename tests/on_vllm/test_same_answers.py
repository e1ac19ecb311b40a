"""The default model, a 4-bit artefact, on both engines: 50 pages and 50 creatives through the service."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.client import Client
from bidtrie.evaluation.pages import read_pages
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import creative_pb2
from e2e import product_home as folders

from bench.measure import STAND_IN

COUNT = 50
#: What float error, and the activations' codes that it moves, may do to a score at 4 bits.
TOLERANCE = 2e-2
LARGEST = 0.1
OPTIONS = ["--cache-bytes", "0", "--creative-cache-bytes", "0", "--max-step-ms", "900", "--search", "exact"]
#: No drafts: each engine decodes plainly.
OPTIONS += ["--draft-nodes", "0", "--threads", "1", "--max-budget-ms", "600000"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path, tuned_path: Path) -> Iterator[Path]:
    with folders.product_home(tmp_path_factory.mktemp("home"), smollm2_path, tuned_path) as home:
        yield home


def answers(home: Path, engine: str, *options: str) -> tuple[list[Any], list[Any]]:
    """Rankings and texts of a server of that engine."""
    titles = [page.context.title for page in islice(read_pages(STAND_IN), COUNT)]
    with (
        own_server("bidtrie-135m", ["iab-content"], [*OPTIONS, "--engine", engine, *options]) as ports,
        Client(f"127.0.0.1:{ports.grpc}") as client,
    ):
        rankings = [client.target(title=title, top_k=5, ranker="llm", timeout_ms=600_000) for title in titles]
        texts = [
            client.generate(
                product=creative_pb2.Product(company="Kettle", description=title), timeout_ms=600_000
            )
            for title in titles
        ]
    return rankings, texts


def test_the_same_answers_as_the_native_engine(home: Path) -> None:
    """Both round activations to the same 8-bit codes, but float error moves some to the next code, and scores a little.

    Segments change places only where scores are near each other.
    """
    rankings, texts = answers(home, "native", "--kv", "float32")
    on_vllm, texts_on_vllm = answers(home, "vllm")
    differences = np.array(
        [
            [abs(one.score - other.score) for one, other in zip(a.segments, b.segments, strict=True)]
            for a, b in zip(rankings, on_vllm, strict=True)
        ]
    )
    within = float((differences <= TOLERANCE).mean())
    same = sum(
        one.creatives[0].text == other.creatives[0].text
        for one, other in zip(texts, texts_on_vllm, strict=True)
    )
    moved = []
    for expected, found in zip(rankings, on_vllm, strict=True):
        scores = {segment.id: segment.score for segment in expected.segments}
        last = expected.segments[-1].score
        moved += [abs(scores.get(each.id, last) - each.score) for each in found.segments]
    print({"within": within, "largest": differences.max(), "moved": max(moved), "same_texts": same})
    assert within >= 0.9
    assert differences.max() <= LARGEST
    assert max(moved) <= LARGEST
    assert same >= 0.95 * COUNT
