"""Compressed models beside the dense one: bits, perplexity on held-out ad text, targeting, milliseconds.

Everything goes through the native engine, as it is served: the dense model in float32, the artefacts in their codes
with activations rounded to 8 bits. Perplexity and divergence are of the file's second half, products as prose one after
the other in sequences of 256 tokens, or of other text (`--text`). Decoding is timed in turns. Targeting is the default
search, title only, once by the model alone (`llm`) and once with the retriever's scores (`default`); `agreement_top3`
is the share of the dense model's three segments that are among the artefact's three, `same_first` the share of titles
with the same first one, and `tier1_top1` the share whose first tier-1 topic is right.

`ratio_perplexity_4bit` and `bits_per_weight` are of the artefact with the most bits that has at most 4.5 of them in its
layers' linears. `front` has a point for each artefact that no other one beats in bits, perplexity and ms at once.

python -m bench.compression ARTEFACT… [--reference MODEL] [--products FILE.csv | --text FILE.txt] [--pages FILE.tsv]
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bidtrie.cli.progress import progress_bar
from bidtrie.compress.calibration_text import read_calibration_text
from bidtrie.compress.measured import DENSE, Measured, measure
from bidtrie.compress.product_text import product_sequences
from bidtrie.evaluation.creative import read_products
from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.evaluation.targeting import Tally
from bidtrie.models.describe import describe
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import PageContext, Search
from bidtrie.scheduling.job import run_alone
from bidtrie.server.metrics import Metrics
from bidtrie.serving.runtime import Runtime
from bidtrie.serving.target_plans import target_plans
from bidtrie.settings import Settings
from bidtrie.trie.prompt import render, retrieval_text
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions

from bench.measure import STAND_IN, latency, machine, report

_PRODUCTS = Path(__file__).parent / "data" / "products.csv"
_TOKENS = 256
_TOP_K = 3
_RANKERS = ("llm", "default")
_MOST_BITS = 4.5


@dataclass(frozen=True, slots=True)
class Targeted:
    """What one model answers to all titles, by ranker: segments, best first; whether the topic is right; ms."""

    segments: Mapping[str, Sequence[Sequence[int]]]
    tallies: Mapping[str, Tally]

    def figures(self, dense: "Targeted") -> dict[str, float]:
        figures: dict[str, float] = {}
        for ranker in _RANKERS:
            pairs = list(zip(self.segments[ranker], dense.segments[ranker], strict=True))
            shared = [len(set(ours) & set(theirs)) / len(theirs) for ours, theirs in pairs]
            figures[f"{ranker}_agreement_top3"] = float(np.mean(shared))
            figures[f"{ranker}_same_first"] = float(np.mean([a[:1] == b[:1] for a, b in pairs]))
            figures[f"{ranker}_tier1_top1"] = float(np.mean(self.tallies[ranker].tier1_top1))
            figures |= latency(f"{ranker}_targeting", self.tallies[ranker].latency_ms)
        return figures


def _target(model: str, weights: str, catalog: str, pages: Sequence[Page]) -> Targeted:
    """The default search on a model's own engine, one title at a time."""
    settings = Settings(model=model, catalogs=(catalog,), weights=weights, cache_fills=0)
    serving = Runtime(settings, Metrics())._serving
    try:
        loaded, level = serving.catalogs[catalog], serving.levels[0]
        engine, tokenizer = level.model.engine, level.model.checkpoint.tokenizer
        plan = next(each for each in target_plans(Search.LIKELY, 1) if each.name == "full")
        options = SearchOptions(
            top_k=_TOP_K,
            prior_weight=serving.ranker.default_prior_weight,
            method=plan.method,
            margin=plan.margin,
            branches=plan.branches,
        )
        segments: dict[str, list[list[int]]] = {name: [] for name in _RANKERS}
        tallies = {name: Tally() for name in _RANKERS}
        for page in [*pages[:3], *pages]:
            context = PageContext(title=page.context.title)
            prompt = render(context, tokenizer, settings.max_context_tokens)
            bonus = loaded.retriever.scores(retrieval_text(context)) * np.float32(
                serving.ranker.retriever_weight
            )
            for ranker in _RANKERS:
                job = search(
                    engine,
                    loaded.trie,
                    level.targeting_prefix,
                    prompt,
                    options,
                    allowed=None,
                    prior=loaded.priors[0],
                    bonus=bonus if ranker == "default" else None,
                    ahead=serving.engines.scheduler.ahead,
                )
                begun = time.perf_counter()
                found = [each.segment for each in run_alone(engine, job).found]
                took = 1e3 * (time.perf_counter() - begun)
                segments[ranker].append(found)
                tallies[ranker].add(page, [loaded.catalog.segments[each].path for each in found], took)
        return _without_warm_up(segments, tallies)
    finally:
        serving.shutdown()


def _without_warm_up(segments: dict[str, list[list[int]]], tallies: dict[str, Tally]) -> Targeted:
    for tally in tallies.values():
        del tally.tier1_top1[:3], tally.latency_ms[:3]
    return Targeted({name: each[3:] for name, each in segments.items()}, tallies)


def _quality(measured: Measured, dense: Measured) -> dict[str, float]:
    return {
        "perplexity": measured.fidelity.perplexity,
        "ratio_perplexity": measured.fidelity.perplexity / dense.fidelity.perplexity,
        "divergence_nats": measured.fidelity.divergence,
        "same_first_token": measured.fidelity.same_first,
        "decode_ms": measured.decode_ms,
        "ratio_float32_decode": dense.decode_ms / measured.decode_ms,
    }


def front(points: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """The points that no other one beats in one key and equals or beats in all."""

    def beats(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
        return all(a[key] <= b[key] for key in keys) and any(a[key] < b[key] for key in keys)

    kept = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(kept, key=lambda point: -float(point[keys[0]]))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    dense = load_checkpoint(options.reference)
    artefacts = {Path(each).name: load_checkpoint(each) for each in options.artefacts}
    if options.text is None:
        products = read_products(options.products)
        products = products[len(products) // 2 :]
        sequences = product_sequences(products, dense.tokenizer, _TOKENS)[: options.sequences]
    else:
        sequences = read_calibration_text(
            [options.text], dense.tokenizer, options.sequences, _TOKENS, seed=0
        ).sequences
    with progress_bar() as bar:
        task = bar.add_task("", total=None)
        measured = measure(
            dense,
            artefacts,
            sequences,
            [],
            machine()["cores"],
            lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total),
        )
        targeted: dict[str, Targeted] = {}
        if options.titles:
            pages = [page for page in read_pages(options.pages) if page.context.title]
            pages = pages[:: max(1, len(pages) // options.titles)][: options.titles]
            models = {DENSE: (options.reference, "float32")}
            models |= {Path(each).name: (each, "auto") for each in options.artefacts}
            for done, (name, (model, weights)) in enumerate(models.items()):
                bar.update(task, description=f"targeting with {name}", completed=done, total=len(models))
                targeted[name] = _target(model, weights, options.catalog, pages)
    rows: list[dict[str, Any]] = []
    for name, each in artefacts.items():
        described = describe(each)
        compression = described["compression"]
        row = {
            "name": name,
            "bits_per_weight": compression["layers_bits_per_weight"],
            "head_bits_per_weight": compression["head_bits_per_weight"],
            "size_mb": described["size_bytes"] / 1e6,
            **_quality(measured[name], measured[DENSE]),
        }
        if targeted:
            row |= targeted[name].figures(targeted[DENSE])
        rows.append(row)
    small = [row for row in rows if row["bits_per_weight"] <= _MOST_BITS]
    best = max(small, key=lambda row: row["bits_per_weight"], default=None)
    return {
        "benchmark": "compression",
        "reference": options.reference,
        "text_from": "stand-in of the project"
        if options.text is None and options.products == _PRODUCTS
        else (options.text or options.products).name,
        "tokens": measured[DENSE].fidelity.tokens,
        "pages_from": "stand-in of the project" if options.pages == STAND_IN else options.pages.name,
        "titles": len(targeted[DENSE].segments["llm"]) if targeted else 0,
        "dense": _quality(measured[DENSE], measured[DENSE])
        | (targeted[DENSE].figures(targeted[DENSE]) if targeted else {}),
        "artefacts": rows,
        "ratio_perplexity_4bit": None if best is None else best["ratio_perplexity"],
        "bits_per_weight": None if best is None else best["bits_per_weight"],
        "front": [
            {
                "name": point["name"],
                "bits_per_weight": point["bits_per_weight"],
                "decode_ms": point["decode_ms"],
                "perplexity": point["perplexity"],
                "agreement_top3": point.get("llm_agreement_top3"),
            }
            for point in front(rows, ("bits_per_weight", "perplexity", "decode_ms"))
        ],
    } | machine()


def _print(figures: dict[str, Any]) -> None:
    print(f"{'':20}{'bits':>7}{'ppl':>9}{'ratio':>8}{'KL':>9}{'ms':>7}{'top3':>7}{'first':>7}{'tier 1':>8}")
    for row in [{"name": DENSE, "bits_per_weight": 32.0, **figures["dense"]}, *figures["artefacts"]]:
        shares = [
            row.get(f"llm_{each}", float("nan")) for each in ("agreement_top3", "same_first", "tier1_top1")
        ]
        print(
            f"{row['name'][:19]:20}{row['bits_per_weight']:7.3f}{row['perplexity']:9.2f}{row['ratio_perplexity']:8.3f}"
            f"{row['divergence_nats']:9.4f}{row['decode_ms']:7.2f}"
            + "".join(f"{each:7.1%}" for each in shares)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artefacts", nargs="+", help="folders that bidtrie compress wrote")
    parser.add_argument("--reference", default="smollm2-135m", help="the model before compression")
    parser.add_argument(
        "--products", type=Path, default=_PRODUCTS, help="labelled products; the second half counts"
    )
    parser.add_argument(
        "--text",
        type=Path,
        help=".txt or .jsonl to measure on instead, drawn from evenly: other text than ads",
    )
    parser.add_argument("--pages", type=Path, default=STAND_IN, help="labelled pages")
    parser.add_argument("--catalog", default="iab-content", help="name of a built catalog")
    parser.add_argument("--sequences", type=int, default=40, help="of 256 tokens, at most")
    parser.add_argument("--titles", type=int, default=150, help="how many pages; 0: no targeting")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.sequences < 1 or options.titles < 0:
        parser.error("--sequences: expected at least 1; --titles: at least 0")
    figures = run(options)
    _print(figures)
    report(figures, options.json)


if __name__ == "__main__":
    main()
