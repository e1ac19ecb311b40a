"""`bidtrie eval targeting` and `bidtrie eval creative`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure the quality of answers, beside baselines.")


@contextmanager
def _server(target: str | None, model: str, catalogs: Sequence[str]) -> Iterator[str]:
    """The address of a running server: the one that was named, or one of our own on a free port."""
    if target:
        yield target
        return
    from bidtrie.serving.own_server import own_server

    with own_server(model=model, catalogs=tuple(catalogs)) as ports:
        yield f"127.0.0.1:{ports.grpc}"


_Target = Annotated[
    str | None, typer.Option(help="HOST:PORT of a running server; without it, one is started.")
]
_Model = Annotated[str, typer.Option(help="Model of the server that is started.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the JSON line only.")]


@app.command("targeting")
def targeting(
    pages: Annotated[
        Path, typer.Option(help="TSV: expected[|…], title [, description [, keywords [, app name]]].")
    ],
    catalog: Annotated[str, typer.Option(help="Name of a built catalog.")],
    target: _Target = None,
    model: _Model = "smollm2-135m",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first pages.")] = None,
    json_only: _Json = False,
) -> None:
    """Accuracy and latency of targeting on labelled pages, ranker by ranker.

    With the extra `bench` installed, the sentence-embedding baseline stands beside the service's rankers.

    Example: bidtrie eval targeting --pages bench/data/pages.tsv --catalog iab-content --json
    """
    from bidtrie.cli.progress import track
    from bidtrie.client import Client
    from bidtrie.evaluation.pages import read_pages
    from bidtrie.evaluation.rankers import embedding_ranker, service_rankers
    from bidtrie.evaluation.targeting import Tally, evaluate, has_paths
    from bidtrie.trie.store import load_catalog

    loaded = load_catalog(catalog)
    chosen = read_pages(pages, loaded)[:limit]
    with _server(target, model, [catalog]) as address, Client(address) as client:
        rankers = service_rankers(client, catalog) | embedding_ranker(loaded)
        tallies: dict[str, Tally] = {}
        for so_far in track(evaluate(chosen, rankers), "pages", total=len(chosen), quiet=json_only):
            tallies = so_far
    paths = has_paths(chosen)
    summaries = {name: tally.summary(paths=paths) for name, tally in tallies.items()}
    # The service's own retriever is the lexical one until it has another.
    summaries["retriever"] = summaries["lexical"]
    if not json_only:
        _print_targeting(summaries)
    default = summaries.pop("default")
    print(json.dumps(default | {"catalog": catalog, "pages": pages.name} | summaries))


def _print_targeting(summaries: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("ranker", "tier 1 top 1", "tier 1 top 3", "path top 1", "path top 5", "p50 ms", "p95 ms")
    for name, row in summaries.items():
        shares = [row[key] for key in ("tier1_top1", "tier1_top3", "path_top1", "path_top5")]
        latency = [f"{row[key]:.1f}" for key in ("latency_ms_p50", "latency_ms_p95")]
        table.add_row(name, *("-" if share is None else f"{share:.1%}" for share in shares), *latency)
    Console().print(table)


@app.command("creative")
def creative(
    products: Annotated[Path, typer.Option(help="CSV: company, industry, type, desc, output.")],
    target: _Target = None,
    model: _Model = "smollm2-135m",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first products.")] = None,
    json_only: _Json = False,
) -> None:
    """Texts written for labelled products against their references: overlap, diversity, limits kept, speed.

    Needs the extra `bench`. Example: bidtrie eval creative --products bench/data/products.csv --limit 50
    """
    from bidtrie.cli.progress import track
    from bidtrie.client import Client
    from bidtrie.evaluation.creative import read_products, summarize, write

    chosen = read_products(products)[:limit]
    with _server(target, model, []) as address, Client(address) as client:
        answers = list(track(write(client, chosen), "products", total=len(chosen), quiet=json_only))
    summary = summarize(chosen, answers)
    if not json_only:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("company", "written", "reference")
        for product, answer in list(zip(chosen, answers, strict=True))[:10]:
            table.add_row(*map(escape, (product.company, answer.text, product.reference)))
        Console().print(table)
    print(json.dumps(summary | {"products": products.name}))
