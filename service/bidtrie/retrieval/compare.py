"""The retrievers beside each other on labelled contexts:

    python -m bidtrie.retrieval.compare --pages bench/data/pages.tsv --catalog iab-content [--model FOLDER]

prints accuracy and microseconds a query of the lexical and the semantic retriever and of both together, and of
all-MiniLM-L6-v2 itself where it is there (extra `bench`; on one thread).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.folds import fold_of, parse_fold
from bidtrie.retrieval.hybrid import HybridRetriever
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.retrieval.semantic import SemanticRetriever
from bidtrie.retrieval.word_vectors import TABLE_PATH, WordVectors, unit
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import retrieval_text
from bidtrie.trie.store import load_catalog

Scores = Callable[[str], Float32]


def accuracy(catalog: Catalog, pages: Sequence[Page], scores: Scores) -> tuple[float, float]:
    """How often the best segment's top tier is right, and how often its whole path: shares of the pages."""
    tops, paths = 0, 0
    for page in pages:
        best = catalog.segments[int(scores(retrieval_text(page.context)).argmax())].path
        tops += best[0] in {path[0] for path in page.expected}
        paths += best in page.expected
    return tops / len(pages), paths / len(pages)


def microseconds(texts: Sequence[str], scores: Scores) -> float:
    """The median time of a query."""
    taken = []
    for text in texts:
        begin = time.perf_counter()
        scores(text)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken) * 1e6)


def sentence_model_scores(catalog: Catalog, folder: Path) -> dict[str, Scores]:
    """The model's cosines with the paths' texts, and with texts and names together, as in training."""
    import torch

    from bidtrie.retrieval.distill import SentenceModel

    torch.set_num_threads(1)
    model = SentenceModel(folder)
    paths = model.texts([catalog.path_text(i) for i in range(len(catalog))])
    both = unit(paths + model.texts([segment.name for segment in catalog.segments]))
    return {
        "minilm": lambda text: paths @ model.texts([text])[0],
        "minilm, path and name": lambda text: both @ model.texts([text])[0],
    }


def main(
    pages: Annotated[
        list[Path],
        typer.Option(help="Labelled contexts, TSVs as for `bidtrie eval targeting`; give it several times."),
    ],
    catalog: Annotated[str, typer.Option(help="Name of the catalog that they are labelled with.")],
    model: Annotated[Path | None, typer.Option(help="Folder of all-MiniLM-L6-v2.")] = None,
    table: Annotated[Path, typer.Option(help="Word vectors to use.")] = TABLE_PATH,
    fold: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the contexts that `distill --without I/N` leaves out."),
    ] = None,
) -> None:
    """Compare the retrievers."""
    labels = load_catalog(catalog)
    lexical, semantic = LexicalRetriever(labels), SemanticRetriever(labels, words=WordVectors(table))
    retrievers: tuple[Retriever, ...] = (lexical, semantic, HybridRetriever(lexical, semantic))
    compared: dict[str, Scores] = {each.name: each.scores for each in retrievers}
    if model is not None:
        compared |= sentence_model_scores(labels, model)
    contexts = [page for file in pages for page in read_pages(file, labels)]
    if fold is not None:
        number, folds = parse_fold(fold, "--fold")
        contexts = [page for page in contexts if fold_of(page.context, folds) == number]
    texts = [retrieval_text(page.context) for page in contexts]
    typer.echo(f"{len(contexts)} contexts: top tier right, path right, microseconds a query")
    for name, scores in compared.items():
        top, path = accuracy(labels, contexts, scores)
        typer.echo(f"{name:22} {top:6.1%} {path:6.1%} {microseconds(texts, scores):8.0f}")


if __name__ == "__main__":
    typer.run(main)
