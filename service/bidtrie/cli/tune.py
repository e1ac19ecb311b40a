"""`bidtrie tune`."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from bidtrie.errors import BidtrieError, CatalogError, InvalidInput


def tune(
    model: Annotated[
        str, typer.Argument(help="A fetched model's name, a .gguf file or a Hugging Face directory.")
    ],
    pairs: Annotated[
        list[Path],
        typer.Option(
            help="Training pairs; give it several times for several files. .tsv: expected[|…], title [, description "
            "[, keywords [, app name]]]; .csv: company, industry, type, desc, output."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write: new or empty.")],
    catalog: Annotated[str | None, typer.Option(help="Name of the built catalog of the pages.")] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Pairs to judge by; without it, 5% of the training pairs.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="lora: low-rank adapters, a few MB; full: all weights, a whole model.")
    ] = "lora",
    rank: Annotated[int, typer.Option(help="Rank of the adapters.")] = 8,
    epochs: Annotated[int, typer.Option(help="Times through all pairs.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="At its height.")] = 5e-4,
    likelihood_weight: Annotated[
        float, typer.Option(help="Of plain likelihood beside the trie-normalised loss of targeting.")
    ] = 0.1,
    creative_weight: Annotated[float, typer.Option(help="Of creatives' loss beside targeting's.")] = 1.0,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target spread over all siblings.")
    ] = 0.05,
    shortlist: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pages asked among the retriever's nearest only.")
    ] = 0.25,
    beside_retriever: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of pages learned with the retriever's score added, as served."
        ),
    ] = 0.0,
    retriever_weight: Annotated[
        float, typer.Option(help="What the retriever's score counts in those pages.")
    ] = 1.5,
    retriever_table: Annotated[
        list[Path] | None,
        typer.Option(
            help="Word vectors of the retriever while tuning, made by `retrieval.distill --without 0/N` to N-1/N and "
            "given in that order, where the served ones have learned from these pairs; default: the served ones."
        ),
    ] = None,
    pack_tokens: Annotated[int, typer.Option(help="Tokens a step.")] = 1024,
    evaluate_every: Annotated[int, typer.Option(help="Steps between two looks at the held-out pairs.")] = 100,
    patience: Annotated[int, typer.Option(help="Looks without a better loss that end the run.")] = 4,
    bfloat16: Annotated[
        bool, typer.Option(help="Compute in bfloat16: faster where the processor has it.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON line only.")] = False,
) -> None:
    """Fine-tune a model on your own pairs, with the prompts that the service uses (extra `tune`).

    Targeting learns the score that is served: at every branching of the catalog's trie, the right child among its
    siblings. Fields are left out at random, so that a title alone, or an app's name, is enough. A run that is killed
    goes on when the same command is given again, and ends with the same result. The result is loaded like any
    model: `bidtrie compress DIR`, `bidtrie serve --model DIR`.

    Example: bidtrie tune smollm2-135m --pairs pages.tsv --pairs ads.csv --catalog iab-content --out tuned
    """
    try:
        from bidtrie.tune.run import tune as run
    except ImportError as error:
        raise BidtrieError(f'tune needs: pip install "bidtrie[tune]" ({error})') from None
    from bidtrie.cli.progress import progress_bar
    from bidtrie.retrieval.word_vectors import WordVectors
    from bidtrie.trie.store import load_catalog
    from bidtrie.tune.pairs import read_pairs
    from bidtrie.tune.recipe import Method, Recipe
    from bidtrie.tune.targeting_examples import Shares
    from bidtrie.tune.trainer import State

    if method not in list(Method):
        raise InvalidInput.of("--method", f"{method!r}, expected {' or '.join(Method)}")
    recipe = Recipe(
        method=Method(method),
        rank=rank,
        epochs=epochs,
        learning_rate=learning_rate,
        likelihood_weight=likelihood_weight,
        creative_weight=creative_weight,
        label_smoothing=label_smoothing,
        retriever_weight=retriever_weight,
        pack_tokens=pack_tokens,
        evaluate_every=evaluate_every,
        patience=patience,
        bfloat16=bfloat16,
        seed=seed,
        shares=Shares(shortlist=shortlist, beside_retriever=beside_retriever),
    )
    begun = time.monotonic()
    loaded = None if catalog is None else load_catalog(catalog)
    training = read_pairs(pairs, loaded)
    try:
        tables = [WordVectors(file) for file in retriever_table or ()]
    except CatalogError as error:
        expected = "expected tables that `python -m bidtrie.retrieval.distill --without I/N` made"
        raise InvalidInput.of("--retriever-table", f"{error}; {expected}") from None
    if held_out:
        judged = read_pairs(held_out, loaded)
    else:
        training, judged = training.split(0.05)
    with progress_bar() as progress:
        task = progress.add_task("tuning", total=None, visible=not as_json)

        def on_step(state: State, total: int) -> None:
            seen = state.looks[-1].held_out if state.looks else None
            text = (
                "" if seen is None else f" held out: {seen.targeting:.3f} a page, {seen.creative:.3f} a token"
            )
            progress.update(task, completed=state.step, total=total, description=f"tuning{text}")

        tuned = run(model, training, judged, loaded, recipe, out, on_step, tables)
    summary = {
        "path": str(out.resolve()),
        "steps": tuned.steps,
        "best_step": tuned.best_step,
        "pages": len(training.pages),
        "products": len(training.products),
        "held_out_pages": len(judged.pages),
        "held_out_products": len(judged.products),
        **{
            f"{kind}_nats_{when}": getattr(losses, kind)
            for kind in ("targeting", "creative")
            for when, losses in (("before", tuned.before), ("after", tuned.after))
        },
        "seconds": round(time.monotonic() - begun, 1),
    }
    if not as_json:
        _print(summary)
    print(json.dumps({key: None if value != value else value for key, value in summary.items()}))


def _print(summary: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("held-out pairs, nats", "before", "after")
    for kind, unit in (("targeting", "a page"), ("creative", "a token")):
        before, after = summary[f"{kind}_nats_before"], summary[f"{kind}_nats_after"]
        cells = ["no pairs" if value != value else f"{value:.3f}" for value in (before, after)]
        table.add_row(f"{kind}, {unit}", *cells)
    Console().print(table)
