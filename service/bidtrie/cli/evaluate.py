"""`bidtrie eval targeting`, `bidtrie eval compare` and `bidtrie eval creative`."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidtrie.errors import InvalidInput
from bidtrie.evaluation.pages import PageField

if TYPE_CHECKING:
    from bidtrie.evaluation.calibration import Calibration
    from bidtrie.evaluation.saved import RunDifference
    from bidtrie.evaluation.significance import Difference

app = typer.Typer(no_args_is_help=True, help="Measure the quality of answers, beside baselines.")


@contextmanager
def _server(
    target: str | None, model: str, catalogs: Sequence[str], arguments: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a running server: the one that was named, or one of our own on a free port."""
    if target:
        yield target
        return
    from bidtrie.serving.own_server import own_server

    with own_server(model=model, catalogs=tuple(catalogs), arguments=arguments) as ports:
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
    model: _Model = "bidtrie-135m",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first pages.")] = None,
    field: Annotated[
        list[PageField] | None,
        typer.Option(
            help="Ask with this field alone; give it several times for several. Pages without are left out."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help=r'Draw it into this .png or .svg; needs "bidtrie\[plots]".')
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write what each ranker answered, page by page: for `eval compare`.")
    ] = None,
    json_only: _Json = False,
) -> None:
    """Accuracy, its significance, latency and calibration of targeting on labelled pages, ranker by ranker.

    The lexical retriever stands beside the service's rankers, and with the extra `bench` installed, sentence
    embeddings. Shares have 95% intervals; differences are judged page by page (McNemar's exact test). Latencies are
    those of 50 segments, which take longer to find than a few; a server that is started has no cache of answers.

    Example: bidtrie eval targeting --pages bench/data/pages.tsv --catalog iab-content --json
    """
    _check_files({"--plot": plot, "--save": save})
    if plot is not None:
        from bidtrie.figure import check_plot

        check_plot(plot)

    from bidtrie.cli.progress import track
    from bidtrie.client import Client
    from bidtrie.evaluation.pages import read_pages, with_only
    from bidtrie.evaluation.rankers import baselines, service_rankers
    from bidtrie.evaluation.targeting import Tally, calibrate, compare, either_right, evaluate, has_paths
    from bidtrie.trie.store import load_catalog

    loaded = load_catalog(catalog)
    chosen = read_pages(pages, loaded)[:limit]
    if field:
        chosen = with_only(chosen, field)
        if not chosen:
            raise InvalidInput.of("--field", f"no page of {pages} has {' or '.join(field)}")
    # Without a cache: what one ranker asks, another may ask again.
    with _server(target, model, [catalog], ["--cache-bytes", "0"]) as address, Client(address) as client:
        rankers = service_rankers(client, catalog) | baselines(loaded)
        tallies: dict[str, Tally] = {}
        for so_far in track(evaluate(chosen, rankers), "pages", total=len(chosen), quiet=json_only):
            tallies = so_far
    paths = has_paths(chosen)
    summaries: dict[str, Any] = {name: tally.summary(paths=paths) for name, tally in tallies.items()}
    differences = compare(tallies, paths=paths)
    either = either_right(tallies, paths=paths)
    calibration = calibrate(tallies, paths=paths)
    if save is not None:
        from bidtrie.evaluation.saved import save as write

        write(save, chosen, tallies)
    if plot is not None:
        from bidtrie.evaluation.plot import write_plot

        write_plot(tallies, calibration, plot, paths=paths)
    if not json_only:
        _print_targeting(summaries)
        _print_differences(differences)
        _print_either(either)
        _print_calibration(calibration)
    default = summaries.pop("default")
    judged = {"compare": _to_json(differences), "either": either, "calibration": _to_json(calibration)}
    print(json.dumps(default | {"catalog": catalog, "pages": pages.name} | summaries | judged))


def _check_files(files: Mapping[str, Path | None]) -> None:
    """Before anything is measured."""
    for flag, file in files.items():
        if file is not None and (file.is_dir() or not os.access(file.parent, os.W_OK)):
            raise InvalidInput.of(flag, f"{file} cannot be written")


def _to_json(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {what: None if each is None else each.to_json() for what, each in kinds.items()}
        for name, kinds in found.items()
    }


def _print_targeting(summaries: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("ranker", "tier 1 top 1", "top 3", "path top 1", "top 5", "p50 ms", "p95 ms")
    for name, row in summaries.items():
        shares = [
            "-"
            if row[key] is None
            else f"{row[key]:.1%}\n{row[f'{key}_low']:.1%} to {row[f'{key}_high']:.1%}"
            for key in ("tier1_top1", "tier1_top3", "path_top1", "path_top5")
        ]
        latency = [f"{row[key]:.1f}" for key in ("latency_ms_p50", "latency_ms_p95")]
        table.add_row(name, *shares, *latency)
    Console().print(table)
    cached = {name: row["cached"] for name, row in summaries.items() if row["cached"]}
    if cached:
        told = ", ".join(f"{name} {count}" for name, count in cached.items())
        Console().print(f"Answers from the server's cache, whose latency says nothing: {told}")


def _print_differences(differences: "Mapping[str, Mapping[str, Difference | None]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("difference", "tier 1 top 1, points", "p", "path top 1, points", "p")
    for name, row in differences.items():
        cells = [cell for share in ("tier1_top1", "path_top1") for cell in _points(row[share])]
        table.add_row(name.replace("_vs_", " less "), *cells)
    Console().print(table)


def _points(found: "Difference | None") -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return f"{found.difference_points:+.1f} ({found.low:+.1f} to {found.high:+.1f})", f"{found.p:.2g}"


def _print_either(either: Mapping[str, float | None]) -> None:
    from rich.console import Console

    names = {"tier1_top1": "tier 1", "path_top1": "path"}
    shares = [f"{names[share]} {value:.1%}" for share, value in either.items() if value is not None]
    if shares:
        told = "Retriever or model right, the most that choosing between their first answers can reach"
        Console().print(f"{told}: {', '.join(shares)}")


def _print_calibration(calibration: "Mapping[str, Mapping[str, Calibration | None]]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("calibration error", "temperature 1", "scaled", "if perfect", "temperature")
    for name, kinds in calibration.items():
        for what, found in kinds.items():
            if found is not None:
                row = found.to_json()
                errors = [f"{row[key]:.3f}" for key in ("ece_unscaled", "ece", "ece_if_calibrated")]
                table.add_row(f"{name}, {what}", *errors, f"{found.temperature:.2f}")
    Console().print(table)


@app.command("compare")
def compare_files(
    a: Annotated[Path, typer.Argument(help="What `eval targeting --save` wrote.", metavar="A.jsonl")],
    b: Annotated[Path, typer.Argument(help="The same pages in another run.", metavar="B.jsonl")],
    json_only: _Json = False,
) -> None:
    """Whether two runs over the same pages differ: each ranker of B against the same one of A, page by page.

    Differences are B less A, in percentage points with a 95% interval; p is of McNemar's exact test.

    Example: bidtrie eval compare float32.jsonl int4.jsonl
    """
    from bidtrie.evaluation.saved import compare_runs, load_saved, same_first

    first, second = load_saved(a), load_saved(b)
    differences = compare_runs(first, second)
    agreement = {name: same_first(first, second, name) for name in differences}
    if not json_only:
        _print_runs(differences, agreement)
    rankers = {name: row | {"same_first": agreement[name]} for name, row in _to_json(differences).items()}
    print(json.dumps({"a": a.name, "b": b.name, "n": len(first.pages), "rankers": rankers}))


def _print_runs(
    differences: "Mapping[str, Mapping[str, RunDifference | None]]", agreement: Mapping[str, float]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("ranker", "share", "A", "B", "B less A, points", "p", "same first")
    for name, row in differences.items():
        for share, found in row.items():
            if found is not None:
                shares = f"{found.share_a:.1%}", f"{found.share_b:.1%}"
                table.add_row(name, share, *shares, *_points(found.difference), f"{agreement[name]:.1%}")
    Console().print(table)


@app.command("creative")
def creative(
    products: Annotated[Path, typer.Option(help="CSV: company, industry, type, desc, output.")],
    target: _Target = None,
    model: _Model = "bidtrie-135m",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first products.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the texts beside their references: a JSON line a product.")
    ] = None,
    json_only: _Json = False,
) -> None:
    """Texts written for labelled products against their references: overlap, diversity, limits kept, speed.

    Needs the extra `bench`. Example: bidtrie eval creative --products bench/data/products.csv --limit 50
    """
    from bidtrie.cli.progress import track
    from bidtrie.client import Client
    from bidtrie.evaluation.creative import check_metrics, read_products, save_texts, summarize, write

    check_metrics()
    _check_files({"--save": save})
    chosen = read_products(products)[:limit]
    with _server(target, model, []) as address, Client(address) as client:
        answers = list(track(write(client, chosen), "products", total=len(chosen), quiet=json_only))
    if save is not None:
        save_texts(save, chosen, answers)
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
