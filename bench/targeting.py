"""Targeting latency against transformers' prefix-constrained beam search, in one run, in turn.

The service runs as users run it: a server process, asked through gRPC, title only, default ranker and search. The
peer is what users write today: transformers in float32, `generate` with `prefix_allowed_tokens_fn` and 4 beams, its
defaults otherwise, paths ended by the model's end-of-sequence token; its times hold no server. A second peer is made
to do what the service's own beam search does: paths ended by a newline, no length penalty, so that it may stop
earlier.

Where the peers' environments are (`make bench-peers`), two more engines choose one path greedily, in processes of their
own that time themselves; else their figures are null, and `peers_missing` says which and why:

  vllm_choice     vLLM in bfloat16: structured output, `choice` of all path texts; prefix caching on
  llama_cpp       llama.cpp with the same file as the service: a grammar with a rule a topic, the likeliest token tried
                  before the vocabulary; prompt cache on. `llama_cpp_q4_0` is the same in its own fastest format

What they compile once is not in their times: `NAME_grammar_ms`. Both may end a path with a newline, as the service
does, and what they write is checked to be a path. `service_greedy` is the service doing no more than they do: a beam of
1, the model alone, no prior. `service_likeliest` finds the likeliest path of all, which greedy choice may miss: exact
search, the model alone. `ratio_vs_llama_cpp` is over `service_greedy`, `ratio_vs_llama_cpp_default` over the service as
it runs by default; `ratio_vs_vllm_choice` is over the default, as the ratios to transformers are,
`ratio_vs_vllm_choice_greedy` over `service_greedy`; both have a `_likeliest`. `NAME_same_as_greedy` is the share of
titles with the path that `service_greedy` finds: theirs differ by rounding, and by tokens, which a grammar of text lets
them cut differently.

All use all cores, one after the other, title by title, in an order drawn for each title, since whoever comes after an
engine with other weights finds them gone from the processor's cache; with a pause before each turn: OpenMP's threads
spin for up to 0.2 s after their work, which would slow the next one down. The service's answer cache is off.

python -m bench.targeting [--json FILE] [--pages FILE.tsv] [--catalog NAME] [--titles 30]
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from bidtrie.client import AsyncClient, Client
from bidtrie.evaluation.pages import read_pages
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import PageContext
from bidtrie.serving.loaded_catalog import terminator
from bidtrie.serving.own_server import own_server
from bidtrie.trie.catalog import SEPARATOR
from bidtrie.trie.prompt import fixed_tokens, render
from bidtrie.trie.store import load_catalog
from bidtrie.trie.trie import Trie

from bench.measure import STAND_IN, latency, machine, report, targeting_options
from bench.peers.process import PeerError
from bench.peers.targeting import NAMES, TargetingPeer, start_targeting_peers
from bench.transformers_peer import constrained_beam, transformers_model

_TIMEOUT_MS = 60_000
_TOP_K = 3
_BEAMS = 4
_IN_FLIGHT = 8
#: Before each turn.
_PAUSE_SECONDS = 0.25
_GREEDY: dict[str, Any] = {
    "top_k": 1,
    "ranker": "llm",
    "search": "beam",
    "beam_width": 1,
    "prior_weight": 0.0,
}
_LIKELIEST: dict[str, Any] = {"top_k": 1, "ranker": "llm", "search": "exact", "prior_weight": 0.0}


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
    times: dict[str, list[float]] = {}
    timings: list[Any] = []
    written: dict[str, list[str]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        warm_up = [*fixed_tokens(tokenizer), *render(PageContext(title="Read more"), tokenizer, 128)]
        peers, missing = start_targeting_peers(
            stack, folder, catalog, checkpoint, warm_up, machine()["cores"]
        )
        ports = stack.enter_context(own_server(model_name, [catalog_name], ["--cache-bytes", "0"]))
        address = f"127.0.0.1:{ports.grpc}"
        client = stack.enter_context(Client(address))
        stack.enter_context(torch.inference_mode())

        def service(title: str, options: dict[str, Any]) -> tuple[float, Any]:
            begin = time.perf_counter()
            answer = client.target(title=title, catalog=catalog_name, timeout_ms=_TIMEOUT_MS, **options)
            return (time.perf_counter() - begin) * 1000, answer

        def beam(name: str, prompt: Sequence[int]) -> float:
            penalty = 1.0 if name == "transformers_beam4" else 0.0
            begin = time.perf_counter()
            constrained_beam(peer, tries[name], prompt, _BEAMS, _TOP_K, penalty)
            return (time.perf_counter() - begin) * 1000

        def default(title: str, prompt: Sequence[int]) -> float:
            milliseconds, answer = service(title, {"top_k": _TOP_K})
            timings.append(answer.timings)
            return milliseconds

        def greedy(title: str, prompt: Sequence[int]) -> float:
            milliseconds, answer = service(title, _GREEDY)
            written.setdefault("service_greedy", []).append(SEPARATOR.join(answer.segments[0].path))
            return milliseconds

        def likeliest(title: str, prompt: Sequence[int]) -> float:
            milliseconds, answer = service(title, _LIKELIEST)
            written.setdefault("service_likeliest", []).append(SEPARATOR.join(answer.segments[0].path))
            return milliseconds

        paths = {catalog.path_text(i) for i in range(len(catalog))}

        def other(engine: TargetingPeer, prompt: Sequence[int]) -> float:
            tokens, milliseconds = engine.choose(prompt)
            kept = [token for token in tokens if token not in tokenizer.eos_ids]
            path = tokenizer.decode(kept).removeprefix(" ").removesuffix("\n")
            if path not in paths:
                raise PeerError(f"wrote {path!r}, which is no path of {catalog_name}")
            written.setdefault(engine.name, []).append(path)
            return milliseconds

        ways: dict[str, Callable[[str, Sequence[int]], float]] = {
            "service": default,
            "service_greedy": greedy,
            "service_likeliest": likeliest,
            **{name: lambda _, prompt, name=name: beam(name, prompt) for name in tries},  # type: ignore[misc]
            **{each.name: lambda _, prompt, each=each: other(each, prompt) for each in peers},  # type: ignore[misc]
        }
        for title, prompt in list(zip(titles, prompts, strict=True))[:2]:
            _turn(ways, title, prompt, missing)
        timings.clear()
        written.clear()
        order = random.Random(0)
        for title, prompt in zip(titles, prompts, strict=True):
            ways = dict(order.sample(list(ways.items()), len(ways)))
            for name, milliseconds in _turn(ways, title, prompt, missing).items():
                times.setdefault(name, []).append(milliseconds)
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
        "steps_median": sorted(each.steps for each in timings)[len(timings) // 2],
        "nodes_median": sorted(each.nodes for each in timings)[len(timings) // 2],
    }
    figures |= latency("service", times["service"])
    figures |= latency("service_engine", [each.engine_ms for each in timings])
    figures |= latency("service_8_in_flight", together)
    for name in tries:
        figures |= latency(name, times[name])
        ratio = name.replace("transformers_beam4", "ratio_vs_transformers")
        figures[ratio] = figures[f"{name}_p50_ms"] / figures["service_p50_ms"]
    for name in ("service_greedy", "service_likeliest"):
        figures |= latency(name, times[name])
    same = [a == b for a, b in zip(written["service_likeliest"], written["service_greedy"], strict=True)]
    figures["service_likeliest_same_as_greedy"] = sum(same) / len(same)
    about = {each.name: each.about for each in peers}
    for name in NAMES:
        default_key = "ratio_vs_vllm_choice" if name == "vllm_choice" else f"ratio_vs_{name}_default"
        greedy_key = "ratio_vs_vllm_choice_greedy" if name == "vllm_choice" else f"ratio_vs_{name}"
        if name in missing:
            figures |= {default_key: None, greedy_key: None, f"ratio_vs_{name}_likeliest": None}
            continue
        figures |= latency(name, times[name])
        figures[default_key] = figures[f"{name}_p50_ms"] / figures["service_p50_ms"]
        figures[greedy_key] = figures[f"{name}_p50_ms"] / figures["service_greedy_p50_ms"]
        figures[f"ratio_vs_{name}_likeliest"] = (
            figures[f"{name}_p50_ms"] / figures["service_likeliest_p50_ms"]
        )
        figures[f"{name}_grammar_ms"] = about[name]["grammar_ms"]
        same = [a == b for a, b in zip(written[name], written["service_greedy"], strict=True)]
        figures[f"{name}_same_as_greedy"] = sum(same) / len(same)
    figures["peers"] = {name: found for name, found in about.items() if name not in missing}
    return figures | {"peers_missing": missing} | machine()


def _turn(
    ways: dict[str, Callable[[str, Sequence[int]], float]],
    title: str,
    prompt: Sequence[int],
    missing: dict[str, str],
) -> dict[str, float]:
    """Milliseconds of each way for one title; a peer that fails is `missing` from then on."""
    found = {}
    for name, way in ways.items():
        if name in missing:
            continue
        time.sleep(_PAUSE_SECONDS)
        try:
            found[name] = way(title, prompt)
        except PeerError as error:
            missing[name] = str(error)
    return found


def main() -> None:
    options = targeting_options(__doc__, titles=30)
    report(run(options.pages, options.catalog, options.model, options.titles), options.json)


if __name__ == "__main__":
    main()
