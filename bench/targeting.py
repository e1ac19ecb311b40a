"""Targeting latency against transformers' prefix-constrained beam search, in one run, in turn.

The service runs as users run it: a server process, asked through gRPC, title only, default ranker and search. The
peer is what users write today: transformers in float32, `generate` with `prefix_allowed_tokens_fn` and 4 beams, its
defaults otherwise, paths ended by the model's end-of-sequence token; its times hold no server. A second peer is made
to do what the service's own beam search does: paths ended by a newline, no length penalty, so that it may stop
earlier. All use all cores, one after the other, title by title.

python -m bench.targeting [--json FILE] [--pages FILE.tsv] [--catalog NAME] [--titles 30]
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import torch
from bidtrie.client import AsyncClient, Client
from bidtrie.evaluation.pages import read_pages
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import PageContext
from bidtrie.serving.loaded_catalog import terminator
from bidtrie.serving.own_server import own_server
from bidtrie.trie.prompt import fixed_tokens, render
from bidtrie.trie.store import load_catalog
from bidtrie.trie.trie import Trie

from bench.measure import STAND_IN, latency, machine, report, targeting_options
from bench.transformers_peer import constrained_beam, transformers_model

_TIMEOUT_MS = 60_000
_TOP_K = 3
_BEAMS = 4
_IN_FLIGHT = 8


async def _in_flight(address: str, catalog: str, titles: list[str]) -> list[float]:
    """Milliseconds a request with 8 always in flight (a closed loop: queueing shows in the latency)."""
    times: list[float] = []
    waiting = list(titles)

    async def worker(client: AsyncClient) -> None:
        while waiting:
            title = waiting.pop()
            begin = time.perf_counter()
            await client.target(title=title, catalog=catalog, top_k=_TOP_K, timeout_ms=_TIMEOUT_MS)
            times.append((time.perf_counter() - begin) * 1000)

    async with AsyncClient(address) as client:
        await asyncio.gather(*(worker(client) for _ in range(_IN_FLIGHT)))
    return times


def run(pages: Path, catalog_name: str, model_name: str, count: int) -> dict[str, Any]:
    """All figures of one run."""
    catalog = load_catalog(catalog_name)
    found = [page for page in read_pages(pages) if page.context.title]
    step = max(1, len(found) // count)
    titles = [page.context.title for page in found[::step][:count]]
    checkpoint = load_checkpoint(model_name)
    tokenizer = checkpoint.tokenizer
    ends = {"transformers_beam4": tokenizer.eos_ids[0], "transformers_beam4_newline": terminator(tokenizer)}
    tries = {
        name: Trie.build(catalog, tokenizer.encode, end, tokenizer.content_hash) for name, end in ends.items()
    }
    prompts = [
        [*fixed_tokens(tokenizer), *render(PageContext(title=title), tokenizer, max_tokens=128)]
        for title in titles
    ]
    peer = transformers_model(checkpoint)
    torch.set_num_threads(machine()["cores"])
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in tries}
    engine_ms: list[float] = []
    nodes: list[int] = []
    steps: list[int] = []
    with own_server(model_name, [catalog_name]) as ports, torch.inference_mode():
        address = f"127.0.0.1:{ports.grpc}"
        with Client(address) as client:
            for warm_up in (True, False):
                for title, prompt in list(zip(titles, prompts, strict=True))[: 2 if warm_up else count]:
                    begin = time.perf_counter()
                    answer = client.target(
                        title=title, catalog=catalog_name, top_k=_TOP_K, timeout_ms=_TIMEOUT_MS
                    )
                    ours_ms = (time.perf_counter() - begin) * 1000
                    peers_ms = {}
                    for name, trie in tries.items():
                        penalty = 1.0 if name == "transformers_beam4" else 0.0
                        begin = time.perf_counter()
                        constrained_beam(peer, trie, prompt, _BEAMS, _TOP_K, penalty)
                        peers_ms[name] = (time.perf_counter() - begin) * 1000
                    if not warm_up:
                        ours.append(ours_ms)
                        for name, milliseconds in peers_ms.items():
                            theirs[name].append(milliseconds)
                        engine_ms.append(answer.timings.engine_ms)
                        nodes.append(answer.timings.nodes)
                        steps.append(answer.timings.steps)
            together = asyncio.run(_in_flight(address, catalog_name, titles * 2))
            status = client.status()
    figures: dict[str, Any] = {
        "benchmark": "targeting",
        "model": model_name,
        "weights": status.model.weights,
        "instruction_set": status.model.instruction_set,
        "threads": status.model.threads,
        "catalog": catalog_name,
        "paths": len(catalog),
        "titles": len(titles),
        "titles_from": "stand-in of the project" if pages == STAND_IN else pages.name,
        "prompt_tokens_median": sorted(map(len, prompts))[len(prompts) // 2],
        "steps_median": sorted(steps)[len(steps) // 2],
        "nodes_median": sorted(nodes)[len(nodes) // 2],
    }
    figures |= latency("service", ours) | latency("service_engine", engine_ms)
    figures |= latency("service_8_in_flight", together)
    for name, milliseconds in theirs.items():
        figures |= latency(name, milliseconds)
        ratio = name.replace("transformers_beam4", "ratio_vs_transformers")
        figures[ratio] = figures[f"{name}_p50_ms"] / figures["service_p50_ms"]
    return figures | machine()


def main() -> None:
    options = targeting_options(__doc__, titles=30)
    report(run(options.pages, options.catalog, options.model, options.titles), options.json)


if __name__ == "__main__":
    main()
