"""bidtrie on vLLM beside stock vLLM, both on the CPU, in one run, in turn: targeting, and a greedy headline.

Ours is the service on its vLLM engine with the default model, default search, drafts on, asked over gRPC. Stock vLLM
has the same weights, dequantized, in bfloat16, in a process of its own with prefix caching: targeting by structured
output (`choice` of all path texts), a headline by plain decoding of the same prompt and as many tokens as ours has.

Run it where vLLM is installed (`make bench-vllm` does):
python -m bench.vllm_tree [--json FILE] [--titles 10] [--threads 2]
"""

import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from bidtrie.client import Client
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.evaluation.pages import read_pages
from bidtrie.models.artefact_writer import write_checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import GenerateQuery, Product, Slot, SlotType
from bidtrie.serving.own_server import own_server
from bidtrie.trie.prompt import fixed_tokens, render, terminator
from bidtrie.trie.store import load_catalog
from bidtrie.trie.trie import token_text
from bidtrie.v1 import creative_pb2

from bench.measure import latency, machine, report, targeting_options
from bench.peers.process import Worker

_CONTEXT_TOKENS = 128
_SLOT = Slot("headline", SlotType.HEADLINE, 70)


def main() -> None:
    options = targeting_options(__doc__, titles=10, threads=2)
    name = "bidtrie-135m" if options.model == "smollm2-135m" else options.model
    checkpoint, catalog = load_checkpoint(name), load_catalog(options.catalog)
    tokenizer = checkpoint.tokenizer
    contexts = [page.context for page in islice(read_pages(options.pages), options.titles)]
    prompts = [[*fixed_tokens(tokenizer), *render(each, tokenizer, _CONTEXT_TOKENS)] for each in contexts]
    texts = [token_text(catalog.path_text(i)).removesuffix("\n") + "\n" for i in range(len(catalog))]
    template = PromptTemplate(tokenizer)
    times: dict[str, list[float]] = {"target": [], "target_stock": [], "creative": [], "creative_stock": []}
    accepted: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_checkpoint(folder / "plain", checkpoint)
        task = folder / "task.json"
        _write_task(task, folder / "plain", texts, terminator(tokenizer), prompts[0])
        stock = Worker(Path(sys.executable), "vllm_targeting", task, "bfloat16", options.threads)
        stack.callback(stock.close)
        arguments = ["--engine", "vllm", "--threads", str(options.threads), "--max-step-ms", "500"]
        arguments += ["--cache-bytes", "0", "--creative-cache-bytes", "0"]
        ports = stack.enter_context(own_server(name, [options.catalog], arguments))
        client = stack.enter_context(Client(f"127.0.0.1:{ports.grpc}"))
        client.target(title="Warm up", ranker="llm", timeout_ms=60_000)
        for context, prompt in zip(contexts, prompts, strict=True):
            begin = time.perf_counter()
            client.target(title=context.title, ranker="llm", timeout_ms=60_000)
            times["target"].append(1000 * (time.perf_counter() - begin))
            times["target_stock"].append(stock.ask("greedy", text=prompt, count=128)["ms"][0])

            query = GenerateQuery(Product(company="Kettle", description=context.title), (_SLOT,))
            begin = time.perf_counter()
            answer = client.generate(
                product=creative_pb2.Product(company="Kettle", description=context.title),
                slots=[
                    creative_pb2.Slot(
                        name="headline", type=creative_pb2.SLOT_TYPE_HEADLINE, max_characters=70
                    )
                ],
                timeout_ms=60_000,
            )
            times["creative"].append(1000 * (time.perf_counter() - begin))
            # As many as the text has, and the one that ends it.
            count = answer.creatives[0].tokens + 1
            whole = [*template.fixed_tokens, *template.rest_tokens(query, _SLOT)]
            times["creative_stock"].append(stock.ask("plain", text=whole, count=count)["ms"][0])
            accepted.append(count / max(1, answer.timings.steps))
        about = stock.ask("about")
    figures: dict[str, Any] = {
        "model": name,
        "titles": len(contexts),
        "threads": options.threads,
        "stock": about["version"],
        "stock_dtype": about["dtype"],
        **{key: value for each, values in times.items() for key, value in latency(each, values).items()},
        "creative_tokens_per_step": statistics.mean(accepted),
        "ratio_targeting_vs_stock": _ratio(times["target_stock"], times["target"]),
        "ratio_creative_vs_stock": _ratio(times["creative_stock"], times["creative"]),
        **machine(),
    }
    report(figures, options.json)


def _ratio(stock: list[float], ours: list[float]) -> float:
    return statistics.median(stock) / statistics.median(ours)


def _write_task(file: Path, model: Path, texts: list[str], end: int, warm_up: list[int]) -> None:

    task = {"model": str(model), "texts": texts, "end": end, "warm_up": warm_up, "grammar": ""}
    file.write_text(json.dumps(task), encoding="utf-8")


if __name__ == "__main__":
    main()
