"""A real server on the vLLM engine, on an artefact: answers, streams, cancels, deadlines, and what does not start."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from bidtrie.client import AsyncClient, Client
from bidtrie.client.errors import RequestFailed
from bidtrie.errors import BidtrieError
from bidtrie.home import models_dir
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.load import load_checkpoint
from bidtrie.serving.own_server import Ports, own_server
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.store import save_catalog
from bidtrie.v1 import creative_pb2
from models.tiny_artefacts import sign, write_tiny_artefact
from reference.tiny_models import save_tiny_model

PATHS = [
    ("Automotive",),
    ("Automotive", "SUV"),
    ("Automotive", "Sedan"),
    ("Food",),
    ("Food", "Baking"),
    ("Food", "Baking", "Bread"),
    ("Sports",),
    ("Sports", "Football"),
]
#: Computed in float32, answers are the same within float error in any company.
#: No cache answers in the engine's place, and a busy machine's steps are no reason to answer in part.
OPTIONS = ["--cache-bytes", "0", "--creative-cache-bytes", "0", "--max-step-ms", "900", "--search", "exact"]
OPTIONS += ["--threads", "1", "--weights", "float32"]
TITLES = [f"{word} for {who}" for word in ("Bread", "Cars", "A match", "Oven") for who in "abcdefgh"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`BIDTRIE_HOME` with a tiny artefact, "tiny", and a catalog."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(folder))
        plain = folder / "plain"
        save_tiny_model("llama", plain)
        settings = json.loads((plain / "config.json").read_text())
        # Room for the creative prompt, which a byte-like tokenizer cuts into very many tokens.
        (plain / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 4096}))
        models_dir().mkdir(parents=True)
        write_tiny_artefact(models_dir() / "tiny", load_checkpoint(plain), GroupFormat(8, 32))
        segments = [Segment(f"s{i}", path[-1], path) for i, path in enumerate(PATHS)]
        save_catalog(Catalog("topics", segments, cattax=9), "test")
        yield folder


@pytest.fixture(scope="module")
def vllm(home: Path) -> Iterator[Ports]:
    with own_server("tiny", ["topics"], [*OPTIONS, "--engine", "vllm"]) as ports:
        yield ports


def address(ports: Ports) -> str:
    return f"127.0.0.1:{ports.grpc}"


def target(client: Client, title: str) -> Any:
    return client.target(title=title, top_k=8, ranker="llm", timeout_ms=20_000)


def test_it_says_what_computes(vllm: Ports) -> None:
    with Client(address(vllm)) as client:
        model = client.status().model
    assert model.engine == "vllm"
    assert model.weights == "float32"
    assert model.instruction_set.startswith("cpu-")


def test_32_in_flight_answer_as_alone(vllm: Ports) -> None:
    with Client(address(vllm)) as client:
        alone = [target(client, title) for title in TITLES]
        with ThreadPoolExecutor(32) as pool:
            together = list(pool.map(lambda title: target(client, title), TITLES))
    for one, other in zip(alone, together, strict=True):
        scores = {segment.id: segment.score for segment in one.segments}
        for segment in other.segments:
            assert segment.score == pytest.approx(scores[segment.id], abs=1e-3)


async def test_a_stream_cancelled_leaves_nothing_behind(vllm: Ports) -> None:
    async with AsyncClient(address(vllm)) as client:
        await client.target(title="Warm", timeout_ms=20_000)
        free = (await client.status()).kv_slots_free
        product = creative_pb2.Product(company="Kettle", description="Boils in 40 seconds")
        slots = [creative_pb2.Slot(name="headline", type=creative_pb2.SLOT_TYPE_HEADLINE, max_characters=60)]
        pieces = 0
        async for _ in client.generate_stream(product=product, slots=slots, timeout_ms=30_000):
            pieces += 1
            break
        assert pieces == 1
        for _ in range(100):
            if (await client.status()).kv_slots_free == free:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("slots of the cancelled stream are still taken")


def test_a_stream_is_the_answer_in_pieces(vllm: Ports) -> None:
    product = creative_pb2.Product(company="Kettle", description="Boils in 40 seconds")
    slots = [creative_pb2.Slot(name="headline", type=creative_pb2.SLOT_TYPE_HEADLINE, max_characters=60)]
    with Client(address(vllm)) as client:
        *deltas, response = client.generate_stream(product=product, slots=slots, timeout_ms=30_000)
        assert "".join(delta.text for delta in deltas) == response.creatives[0].text
        assert len(deltas) > 1
        assert client.generate(product=product, slots=slots).creatives[0].text == response.creatives[0].text


def test_a_deadline_is_kept(vllm: Ports) -> None:
    """There is no time for the model: something cheaper is told, or nothing, at once."""
    shed = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    with Client(address(vllm)) as client:
        code, cheaper = None, False
        try:
            answer = client.target(title="A page without time", tmax_ms=3, ranker="llm", timeout_ms=5_000)
            cheaper = answer.partial or answer.fallback
        except RequestFailed as error:
            code = error.code
    assert cheaper or code in shed


# What does not start.


def why_not(home: Path, *arguments: str) -> str:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "bidtrie",
            "serve",
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            "--engine",
            "vllm",
            *arguments,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"BIDTRIE_HOME": str(home)},
        timeout=120,
    )
    assert process.returncode in (1, 2), process.stderr
    return process.stderr


def test_a_damaged_artefact_is_named(home: Path) -> None:
    broken = models_dir() / "broken"
    write_tiny_artefact(broken, load_checkpoint(home / "plain"), GroupFormat(4, 32))
    config = json.loads((broken / "config.json").read_text())
    config["quantization_config"]["linears"]["model.layers.0.mlp.up_proj"]["group_size"] = 64
    (broken / "config.json").write_text(json.dumps(config))
    assert "SHA-256" in why_not(home, "--model", "broken")
    sign(broken)
    with pytest.raises(BidtrieError, match="up_proj"), own_server("broken", ["topics"], ["--engine", "vllm"]):
        pass


def test_settings_that_vllm_does_not_know(home: Path) -> None:
    assert "kv" in why_not(home, "--model", "tiny", "--kv", "float16")
    assert "instruction_set" in why_not(home, "--model", "tiny", "--instruction-set", "avx2")
