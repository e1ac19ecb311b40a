"""The ways to search a catalog beside each other: what they take, and how often they find what exact search finds.

On the engine itself, one search at a time, title only, the default ranker, title by title in turn. `agreement_top3` is
the share of titles with the same three segments in the same order as exact search, `agreement_top1` with the same
first. `exact` searches with a proven bound, `likely` is the default; `narrow`, `coarse` and `coarsest` are what is left
of it under load. `llm` is the default search without the retriever's scores; `shortlist` and `shortlist_llm` rank the
retriever's 20 best segments only, with and without its scores; `retriever` asks no model.

The first titles are also scored exhaustively, every path of the catalog: `exact_is_exhaustive_titles` of
`exhaustive_titles` have the same segments in the same order, with scores that differ by `largest_score_difference`.

python -m bench.search [--json FILE] [--pages FILE.tsv] [--catalog NAME] [--titles 226]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from bidtrie.evaluation.pages import read_pages
from bidtrie.evaluation.targeting import Tally
from bidtrie.requests import PageContext, Search
from bidtrie.scheduling.job import run_alone
from bidtrie.server.metrics import Metrics
from bidtrie.serving.runtime import Runtime
from bidtrie.serving.target_plans import target_plans
from bidtrie.settings import Settings
from bidtrie.trie.prior import neutral_log_probabilities
from bidtrie.trie.prompt import render, retrieval_text
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions
from bidtrie.trie.trie import Trie
from numpy.typing import NDArray

from bench.measure import STAND_IN, latency, machine, report, targeting_options

_TOP_K = 3
_EXHAUSTIVE = 30
_SHORTLIST = 20


def _options(prior_weight: float) -> dict[str, SearchOptions]:
    likely = {plan.name: plan for plan in target_plans(Search.LIKELY, 1)}
    common: dict[str, Any] = {"top_k": _TOP_K, "prior_weight": prior_weight}
    found = {
        "exact": SearchOptions(method=Search.EXACT, **common),
        "exact_without_prior": SearchOptions(_TOP_K, method=Search.EXACT),
        **{
            "likely" if name == "full" else name: SearchOptions(
                method=plan.method, margin=plan.margin, branches=plan.branches, **common
            )
            for name, plan in likely.items()
        },
    }
    for width in (1, 4, 8):
        found[f"beam{width}"] = SearchOptions(method=Search.BEAM, beam_width=width, **common)
    found["llm"] = found["shortlist"] = found["shortlist_llm"] = found["likely"]
    return found


def _exhaustive(
    trie: Trie,
    rows: NDArray[np.float32],
    prior: NDArray[np.float32],
    weight: float,
    bonus: NDArray[np.float32],
) -> list[tuple[float, int]]:
    """Score and segment of every path, best first, from the log-probability of every node's token after its parent."""

    def renormalised(values: NDArray[np.float32]) -> NDArray[np.float64]:
        result = np.zeros(len(trie))
        for node in range(len(trie)):
            children = trie.children(node)
            if children:
                part = values[children.start : children.stop].astype(np.float64)
                result[children.start : children.stop] = part - np.logaddexp.reduce(part)
        return result

    gains = renormalised(rows) - weight * renormalised(prior)
    scores = [
        float(gains[trie.path_nodes(segment)].sum() + bonus[segment])
        for segment in range(len(trie.segment_parent))
    ]
    return sorted(
        ((score, segment) for segment, score in enumerate(scores)), key=lambda each: (-each[0], each[1])
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    settings = Settings(model=options.model, catalogs=(options.catalog,), cache_fills=0)
    runtime = Runtime(settings, Metrics())
    # The parts that the server puts together, without the scheduler between them.
    serving = runtime._serving
    loaded, level = serving.catalogs[options.catalog], serving.levels[0]
    engine, tokenizer = level.model.engine, level.model.checkpoint.tokenizer
    pages = [page for page in read_pages(options.pages) if page.context.title]
    pages = pages[:: max(1, len(pages) // options.titles)][: options.titles]
    prior_weight = serving.ranker.default_prior_weight
    methods = _options(prior_weight)
    times: dict[str, list[float]] = {name: [] for name in methods}
    steps: dict[str, list[int]] = {name: [] for name in methods}
    nodes: dict[str, list[int]] = {name: [] for name in methods}
    found: dict[str, list[list[int]]] = {name: [] for name in methods}
    tallies, retriever = {name: Tally() for name in methods}, Tally()
    scheduler = serving.engines.scheduler
    same, checked, largest = 0, 0, 0.0
    for warm_up in (True, False):
        for page in pages[: 3 if warm_up else None]:
            context = PageContext(title=page.context.title)
            prompt = render(context, tokenizer, settings.max_context_tokens)
            bonus = loaded.retriever.scores(retrieval_text(context)) * np.float32(
                serving.ranker.retriever_weight
            )
            begin = time.perf_counter()
            listed = loaded.retriever.shortlist(retrieval_text(context), _SHORTLIST)
            shortlist = loaded.trie.allow([segment for segment, _ in listed])
            if not warm_up:
                ranked = [loaded.catalog.segments[segment].path for segment, _ in listed[:_TOP_K]]
                retriever.add(page, ranked, 1000 * (time.perf_counter() - begin))
            truth = []
            if not warm_up and checked < _EXHAUSTIVE:
                walk = neutral_log_probabilities(engine, loaded.trie, prompt, level.targeting_prefix)
                rows = run_alone(engine, walk)
                truth = _exhaustive(loaded.trie, rows, loaded.priors[0], prior_weight, bonus)[:_TOP_K]
                checked += 1
            for name, method in methods.items():
                sizes: list[int] = []
                job = search(
                    engine,
                    loaded.trie,
                    level.targeting_prefix,
                    prompt,
                    method,
                    allowed=shortlist if name.startswith("shortlist") else None,
                    prior=loaded.priors[0],
                    bonus=None if name.endswith("llm") else bonus,
                    ahead=scheduler.ahead,
                )

                def counted(job: Any = job, sizes: list[int] = sizes) -> Any:
                    output = None
                    while True:
                        try:
                            batch = job.send(output)
                        except StopIteration as stop:
                            return stop.value
                        sizes.append(len(batch))
                        output = yield batch

                begin = time.perf_counter()
                result = run_alone(engine, counted())
                if not warm_up:
                    times[name].append(1000 * (time.perf_counter() - begin))
                    steps[name].append(len(sizes))
                    nodes[name].append(sum(sizes))
                    found[name].append([each.segment for each in result.found])
                    paths = [loaded.catalog.segments[each.segment].path for each in result.found]
                    tallies[name].add(page, paths, times[name][-1])
                    if name == "exact" and truth:
                        same += found[name][-1] == [segment for _, segment in truth]
                        pairs = zip(result.found, truth, strict=True)
                        largest = max(largest, *(abs(each.score - score) for each, (score, _) in pairs))
    figures: dict[str, Any] = {
        "benchmark": "search",
        "model": options.model,
        "catalog": options.catalog,
        "paths": len(loaded.catalog),
        "titles": len(pages),
        "titles_from": "stand-in of the project" if options.pages == STAND_IN else Path(options.pages).name,
        "nodes_ahead": scheduler.ahead(),
        "exhaustive_titles": checked,
        "exact_is_exhaustive_titles": same,
        "largest_score_difference": largest,
    }
    for name in methods:
        figures |= latency(name, times[name])
        figures[f"{name}_mean_ms"] = float(np.mean(times[name]))
        figures[f"{name}_steps_mean"] = float(np.mean(steps[name]))
        figures[f"{name}_nodes_mean"] = float(np.mean(nodes[name]))
        figures[f"{name}_tier1_top1"] = float(np.mean(tallies[name].tier1_top1))
        figures[f"{name}_tier1_top3"] = float(np.mean(tallies[name].tier1_top3))
        if name in ("likely", "narrow", "coarse", "coarsest") or name.startswith("beam"):
            both = list(zip(found[name], found["exact"], strict=True))
            figures[f"{name}_agreement_top3"] = float(np.mean([a == b for a, b in both]))
            figures[f"{name}_agreement_top1"] = float(np.mean([a[0] == b[0] for a, b in both]))
    figures |= latency("retriever", retriever.latency_ms)
    figures["retriever_tier1_top1"] = float(np.mean(retriever.tier1_top1))
    figures["retriever_tier1_top3"] = float(np.mean(retriever.tier1_top3))
    serving.shutdown()
    return figures | machine()


def main() -> None:
    options = targeting_options(__doc__, titles=226)
    report(run(options), options.json)


if __name__ == "__main__":
    main()
