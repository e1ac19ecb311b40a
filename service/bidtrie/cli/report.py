"""What `bidtrie model report` shows: artefacts, measured where there is something to measure them with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bidtrie.cli.progress import progress_bar
from bidtrie.errors import InvalidInput
from bidtrie.models.load import load_checkpoint

#: Products of the file's end that samples are written for.
_SAMPLES = 6
_TOKENS = 256


def measured_report(
    models: Sequence[str], reference: str | None, products: Path | None, sequences: int, *, quiet: bool
) -> dict[str, Any]:
    """The report's JSON. Raises InvalidInput for flags that do not go together, and ModelError for models."""
    if (reference is None) != (products is None):
        missing = "--reference" if reference is None else "--products"
        raise InvalidInput.of(missing, "is missing, expected both --reference and --products, or neither")
    if sequences < 1:
        raise InvalidInput.of("--sequences", f"{sequences}, expected 1 or more")
    names = [Path(each).name for each in models]
    if len(set(names)) < len(names):
        raise InvalidInput.of("models", f"{', '.join(names)}, expected folders of different names")
    from bidtrie.compress.report import report_of

    artefacts = {name: load_checkpoint(each) for name, each in zip(names, models, strict=True)}
    if reference is None or products is None:
        return report_of(artefacts)
    import os

    from bidtrie.compress.measured import measure
    from bidtrie.compress.product_text import product_sequences
    from bidtrie.evaluation.creative import read_products

    dense = load_checkpoint(reference)
    for name, each in artefacts.items():
        if each.tokenizer.content_hash != dense.tokenizer.content_hash:
            raise InvalidInput.of("--reference", f"{reference} has another tokenizer than {name}")
    every = read_products(products)
    text = product_sequences(every, dense.tokenizer, _TOKENS)[:sequences]
    if not len(text):
        raise InvalidInput.of("--products", f"{products.name} holds fewer than {_TOKENS} tokens")
    shown = every[-_SAMPLES:]
    with progress_bar() as bar:
        task = bar.add_task("", total=None, visible=not quiet)
        measured = measure(
            dense,
            artefacts,
            text,
            shown,
            len(os.sched_getaffinity(0)),
            lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total),
        )
    described = [f"{each.company}: {each.description}" for each in shown]
    return report_of(
        artefacts, measured, described, f"{products.name}, {len(text)} sequences of {_TOKENS} tokens"
    )
