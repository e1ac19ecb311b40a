"""How catalogs of 1,000 to 1,000,000 paths scale: building, loading, memory, and the time of a search.

Each size runs in a process of its own, so that its memory is its own. Catalogs are synthetic and seeded
(`bench.synthetic_catalog`). Searches run on the runtime in this process, as the server runs them, without gRPC: title
only, default ranker and search, retriever included, no cached answers; then with a shortlist of 20 candidates, and by
the retriever alone. Files are in the page cache when they are loaded.

python -m bench.scaling [--json FILE] [--sizes 1000,10000,100000,1000000] [--titles 40] [--prior-nodes 200000]
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import STAND_IN, latency, machine, report

_TOP_K = 3
_SHORTLIST = 20


def _resident_mb() -> tuple[float, float]:
    """Resident memory of this process: of its own, and of mapped files, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return values["RssAnon"], values["RssFile"]


class _Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    def step(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"{name}_s"] = now - self._begin
        self._begin = now


def _build(size: int, model: str, progress: bool) -> tuple[dict[str, Any], int]:
    """Build a catalog with all that a model needs of it; seconds of each step, and the trie's nodes."""
    from bidtrie.cli.progress import progress_bar
    from bidtrie.models.load import load_checkpoint
    from bidtrie.retrieval.lexical_store import load_or_build_retriever
    from bidtrie.serving.loaded_catalog import terminator
    from bidtrie.serving.prepare import prepare_catalog
    from bidtrie.trie.catalog import Catalog
    from bidtrie.trie.sources import read_source
    from bidtrie.trie.store import load_catalog, load_or_build_trie, save_catalog

    from bench.synthetic_catalog import synthetic_segments

    tokenizer = load_checkpoint(model).tokenizer
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.tsv"
        lines = (f"{each.id}\t{' > '.join(each.path)}\n" for each in synthetic_segments(size))
        file.write_text("".join(lines), encoding="utf-8")
        clock = _Clock()
        source = read_source(file)
        clock.step("build_read")
    saved = save_catalog(Catalog("scaling", source.segments), "synthetic")
    clock.step("build_catalog")
    catalog = load_catalog(saved)
    trie = load_or_build_trie(saved, catalog, tokenizer.encode, terminator(tokenizer), tokenizer.content_hash)
    clock.step("build_trie")
    load_or_build_retriever(saved, catalog)
    clock.step("build_retriever")
    with progress_bar() as bar:
        task = bar.add_task(f"prior of {size:,} paths", total=100, visible=progress)
        prepare_catalog(saved, model, lambda done: bar.update(task, completed=round(100 * done)))
    clock.step("build_prior")
    return clock.seconds, len(trie)


def _load(model: str) -> dict[str, Any]:
    """Load the catalog piece by piece: seconds, bytes a node on disk and derived in memory, and what lists cost."""
    from bidtrie.models.load import load_checkpoint
    from bidtrie.retrieval.lexical_store import load_or_build_retriever
    from bidtrie.trie.potential import Potential
    from bidtrie.trie.store import catalog_folder, load_catalog, load_trie

    tokenizer = load_checkpoint(model).tokenizer
    folder = catalog_folder("scaling")
    before = _resident_mb()
    clock = _Clock()
    catalog = load_catalog("scaling")
    clock.step("load_catalog")
    trie = load_trie(folder, catalog, tokenizer.content_hash)
    clock.step("load_trie")
    retriever = load_or_build_retriever(folder, catalog)
    clock.step("load_retriever")
    after = _resident_mb()
    figures: dict[str, Any] = dict(clock.seconds)
    arrays = [each for each in vars(trie).values() if isinstance(each, np.ndarray)]
    mapped = sum(each.nbytes for each in arrays if not each.flags.owndata and not each.flags.writeable)
    derived = sum(each.nbytes for each in arrays) - mapped
    files = {each.name.split("-")[0].split(".")[0]: each.stat().st_size for each in folder.iterdir()}
    figures |= {
        "nodes": len(trie),
        "levels": len(trie.levels) - 1,
        "widest": int(np.diff(trie.first_child).max()),
        "trie_mapped_bytes_a_node": mapped / len(trie),
        "trie_derived_bytes_a_node": derived / len(trie),
        "prior_bytes_a_node": files["prior"] / len(trie),
        "catalog_disk_bytes_a_segment": (files["segments"] + files["index"]) / len(catalog),
        "retriever_disk_bytes_a_segment": files["lexical"] / len(catalog),
        "loaded_own_memory_mb": after[0] - before[0],
        "loaded_mapped_memory_mb": after[1] - before[1],
    }
    scores = retriever.scores("wireless headphones for the garden")
    listed = np.random.default_rng(0).choice(len(catalog), _SHORTLIST, replace=False)
    figures["allow_shortlist_20_ms"] = _median_ms(lambda: trie.allow(listed))
    figures["allow_blocked_20_ms"] = _median_ms(lambda: trie.allow(None, listed))
    figures["retriever_potential_ms"] = _median_ms(lambda: Potential(trie, scores))
    return figures


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(21):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return float(np.median(times))


async def _search(model: str, titles: list[str]) -> dict[str, Any]:
    """Milliseconds of searches, in turn of their kinds."""
    from bidtrie.requests import PageContext, Ranker, TargetQuery
    from bidtrie.serving.runtime import Runtime
    from bidtrie.settings import Settings

    begin = time.perf_counter()
    runtime = Runtime(Settings(model=model, catalogs=("scaling",), cache_bytes=0))
    ready = time.perf_counter() - begin
    count = runtime.status().catalogs[0].segments
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {}
    engine, steps, nodes = [], [], []
    try:
        for i, title in enumerate(titles):
            shortlist = tuple(f"seg-{each + 1:07d}" for each in rng.choice(count, _SHORTLIST, replace=False))
            kinds = {
                "search": TargetQuery(PageContext(title=title), top_k=_TOP_K),
                "shortlist_20": TargetQuery(PageContext(title=title), top_k=_TOP_K, candidates=shortlist),
                "blocked_20": TargetQuery(PageContext(title=title), top_k=_TOP_K, blocked=shortlist),
                "retriever": TargetQuery(PageContext(title=title), top_k=_TOP_K, ranker=Ranker.RETRIEVER),
            }
            for kind, query in kinds.items():
                begin = time.perf_counter()
                answer = await runtime.target(query)
                # The first titles warm up.
                if i >= 2:
                    times.setdefault(kind, []).append((time.perf_counter() - begin) * 1000)
                if kind == "search":
                    engine.append(answer.timings.engine_ms)
                    steps.append(answer.timings.steps)
                    nodes.append(answer.timings.nodes)
        own, mapped = _resident_mb()
    finally:
        await runtime.close()
    figures: dict[str, Any] = {"runtime_ready_s": ready}
    for kind, milliseconds in times.items():
        figures |= latency(kind, milliseconds)
    figures |= latency("search_engine", engine[2:])
    figures["search_steps_median"] = float(np.median(steps))
    figures["search_nodes_median"] = float(np.median(nodes))
    figures["process_own_memory_mb"], figures["process_mapped_memory_mb"] = own, mapped
    figures["process_peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def _in_own_process(work: Any, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _build_there(home: str, size: int, model: str, prior_nodes: int) -> tuple[dict[str, Any], int]:
    _enter(home, prior_nodes)
    return _build(size, model, progress=True)


def _measure_there(home: str, model: str, titles: list[str], prior_nodes: int) -> dict[str, Any]:
    _enter(home, prior_nodes)
    return _load(model) | asyncio.run(_search(model, titles))


def _enter(home: str, prior_nodes: int) -> None:
    from bidtrie.trie import prior

    os.environ["BIDTRIE_HOME"] = home
    prior.PRIOR_NODES = prior_nodes


def run(sizes: list[int], model: str, count: int, prior_nodes: int) -> dict[str, Any]:
    """All figures of one run, keyed `SIZE_…`."""
    from bidtrie.evaluation.pages import read_pages
    from bidtrie.models.fetch import fetch
    from bidtrie.models.known import KNOWN_MODELS

    path = str(fetch(model)) if model in KNOWN_MODELS else model
    found = [page.context.title for page in read_pages(STAND_IN) if page.context.title]
    titles = found[:: max(1, len(found) // (count + 2))][: count + 2]
    figures: dict[str, Any] = {
        "benchmark": "scaling",
        "model": model,
        "titles": count,
        "titles_from": "stand-in of the project",
        "catalogs": "synthetic",
        "prior_nodes": prior_nodes,
    }
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bidtrie-scaling-") as home:
            built, _ = _in_own_process(_build_there, home, size, path, prior_nodes)
            measured = _in_own_process(_measure_there, home, path, titles, prior_nodes)
        figures |= {f"{size}_{name}": value for name, value in (built | measured).items()}
        print(
            f"{size:>9,} paths, {measured['nodes']:,} nodes: built in "
            f"{sum(built.values()) - built['build_prior_s']:.1f} s and {built['build_prior_s']:.1f} s for the prior, "
            f"loaded in {sum(v for k, v in measured.items() if k.startswith('load_')):.2f} s; "
            f"search p50 {measured['search_p50_ms']:.1f} ms (engine {measured['search_engine_p50_ms']:.1f}), "
            f"20 candidates {measured['shortlist_20_p50_ms']:.1f} ms, "
            f"retriever {measured['retriever_p50_ms']:.1f} ms",
            flush=True,
        )
    first = 10_000 if 10_000 in sizes else sizes[0]
    figures["ratio_search_p50_largest_vs_10k"] = (
        figures[f"{sizes[-1]}_search_p50_ms"] / figures[f"{first}_search_p50_ms"]
    )
    return figures | machine()


def main() -> None:
    from bidtrie.trie.prior import PRIOR_NODES

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--model", default="smollm2-135m", help="name or path of a checkpoint")
    parser.add_argument(
        "--sizes", default="1000,10000,100000,1000000", help="paths, ascending, commas between"
    )
    parser.add_argument("--titles", type=int, default=40, help="searches of each kind")
    parser.add_argument(
        "--prior-nodes", type=int, default=PRIOR_NODES, help="nodes that get a prior: less is quicker"
    )
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    report(run(sizes, options.model, options.titles, options.prior_nodes), options.json)


if __name__ == "__main__":
    main()
