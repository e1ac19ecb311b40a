"""A whole tuning run: from a checkpoint and pairs to a folder that `compress` and the engines load."""

import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bidtrie import __version__
from bidtrie.errors import BidtrieError, InvalidInput
from bidtrie.models.adapter import TUNE_RECORD
from bidtrie.models.artefact_writer import check_writable, write_checkpoint
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.models.names import model_path
from bidtrie.models.serving_defaults import SERVING
from bidtrie.models.tensor import Tensor
from bidtrie.retrieval.hybrid import HybridRetriever
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.retrieval.semantic import SemanticRetriever
from bidtrie.retrieval.word_vectors import WordVectors, package_vectors
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import PROMPT_VERSION, fixed_tokens, terminator
from bidtrie.trie.trie import Trie
from bidtrie.tune.creative_examples import CreativeExamples
from bidtrie.tune.epoch import Epochs
from bidtrie.tune.lora import with_adapters, write_adapter
from bidtrie.tune.pairs import Pairs
from bidtrie.tune.recipe import Method, Recipe
from bidtrie.tune.targeting_examples import TargetingExamples
from bidtrie.tune.torch_model import torch_model
from bidtrie.tune.trainer import Losses, State, Trainer


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came out.

    before, after  losses on the held-out pairs, of the untuned model and of the best weights
    steps, total   steps made, and those that the recipe allows; best_step is the one whose weights were kept
    """

    before: Losses
    after: Losses
    steps: int
    total: int
    best_step: int


def tune(
    base: str | Path,
    training: Pairs,
    held_out: Pairs,
    catalog: Catalog | None,
    recipe: Recipe,
    out: Path,
    on_step: Callable[[State, int], None] = lambda state, total: None,
    word_vectors: Sequence[WordVectors] = (),
) -> Tuned:
    """Tune a model (a fetched one's name, or a path) and write `out`, whole or not at all.

    What is written is an adapter (LoRA), or a model's directory (all weights).

    The run's state lies in `.OUT.tuning` beside `out` until it is done; a run that was killed goes on from there and
    ends with the same bytes. `on_step` gets the state and the total of steps. `word_vectors` are the retriever's, one a
    fold (`retrieval.folds`); none: the package's.
    """
    checkpoint = load_checkpoint(base)
    check_writable(checkpoint, out)
    work = out.resolve().with_name(f".{out.resolve().name}.tuning")
    _check(training, held_out)
    try:
        work.mkdir(exist_ok=True)
        model = torch_model(checkpoint)
        if recipe.method is Method.LORA:
            model = with_adapters(model, recipe.rank, recipe.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model.to(device)
        trainer = Trainer(
            model,
            recipe,
            _epochs(checkpoint, catalog, training, recipe, word_vectors),
            _epochs(checkpoint, catalog, held_out, recipe, ()),
            work,
            _identity(checkpoint, catalog, training, held_out, recipe, word_vectors),
        )
        trainer.resume()
        for state in trainer.run():
            on_step(state, trainer.total_steps)
        after = trainer.held_out()
        trainer.forget()
        before = trainer.held_out()
        trainer.recall()
        tuned = Tuned(before, after, trainer.state.step, trainer.total_steps, trainer.state.best_step)
        _write(
            out,
            _loadable(base),
            checkpoint,
            model.to("cpu"),
            recipe,
            tuned,
            trainer,
            catalog,
            (training, held_out),
        )
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise BidtrieError(f"{error.filename or out}: {error.strerror or error}") from error
    return tuned


def _check(training: Pairs, held_out: Pairs) -> None:
    if not len(training):
        raise InvalidInput.of("--pairs", "hold nothing to learn from")
    shared = {page.context for page in training.pages} & {page.context for page in held_out.pages}
    if shared:
        title = next(iter(shared)).title
        raise InvalidInput.of("--held-out", f"{len(shared)} pages are in --pairs too, for example {title!r}")


def _epochs(
    checkpoint: Checkpoint,
    catalog: Catalog | None,
    pairs: Pairs,
    recipe: Recipe,
    word_vectors: Sequence[WordVectors],
) -> Epochs:
    tokenizer = checkpoint.tokenizer
    targeting = None
    if catalog is not None and pairs.pages:
        lexical = LexicalRetriever(catalog)
        targeting = TargetingExamples(
            catalog,
            Trie.build(catalog, tokenizer.encode, terminator(tokenizer), tokenizer.content_hash),
            tokenizer,
            recipe.max_context_tokens,
            [
                HybridRetriever(lexical, SemanticRetriever(catalog, words=words))
                for words in word_vectors or (None,)
            ],
            recipe.retriever_weight,
        )
    return Epochs(pairs, targeting, CreativeExamples(tokenizer), fixed_tokens(tokenizer), recipe.pack_tokens)


def _identity(
    checkpoint: Checkpoint,
    catalog: Catalog | None,
    training: Pairs,
    held_out: Pairs,
    recipe: Recipe,
    word_vectors: Sequence[WordVectors],
) -> str:
    version = None if catalog is None else catalog.version
    tables = [words.identity for words in word_vectors or (package_vectors(),)]
    settings = (recipe.to_json(), PROMPT_VERSION, tables)
    all_of_it = (checkpoint.content_hash, version, training, held_out, settings)
    return hashlib.sha256(repr(all_of_it).encode()).hexdigest()


def _loadable(base: str | Path) -> str:
    """What `load_checkpoint` finds the base by from anywhere: a fetched model's name, or the whole path."""
    fetched = isinstance(base, str) and model_path(base) is not None
    return str(base) if fetched else str(Path(base).expanduser().absolute())


def _serving(recipe: Recipe, catalog: Catalog | None) -> dict[str, Any]:
    """What the model recommends for serving: as it was tuned, the score is its own, without a correction."""
    if catalog is None:
        return {}
    beside = {"retriever_weight": recipe.retriever_weight} if recipe.shares.beside_retriever else {}
    return {SERVING: {"prior_weight": 0.0, **beside, "catalogs": [catalog.name, catalog.version]}}


def _to_json(losses: Losses) -> dict[str, float | None]:
    """A kind of pair that there was none of has no loss."""
    return {kind: None if math.isnan(value) else value for kind, value in asdict(losses).items()}


def _write(
    out: Path,
    base: str,
    checkpoint: Checkpoint,
    model: Any,
    recipe: Recipe,
    tuned: Tuned,
    trainer: Trainer,
    catalog: Catalog | None,
    pairs: tuple[Pairs, Pairs],
) -> None:
    serving = _serving(recipe, catalog)
    if recipe.method is Method.FULL:
        weights = model.state_dict()
        tensors = {
            name: Tensor("float32", tensor.shape, weights[name].detach().numpy())
            for name, tensor in checkpoint.tensors.items()
        }
        config = {**(checkpoint.huggingface_config or {}), **serving}
        write_checkpoint(
            out, replace(checkpoint, tensors=tensors, compression=None, huggingface_config=config)
        )
        return
    record = {
        "bidtrie_version": __version__,
        "base": checkpoint.name,
        "base_content_hash": checkpoint.content_hash,
        "catalog": None if catalog is None else {"name": catalog.name, "version": catalog.version},
        "prompts": PROMPT_VERSION,
        **serving,
        "recipe": recipe.to_json(),
        "pairs": {
            name: {"pages": len(each.pages), "products": len(each.products)}
            for name, each in zip(("training", "held_out"), pairs, strict=True)
        },
        "losses": {
            "before": _to_json(tuned.before),
            "after": _to_json(tuned.after),
            "best_step": tuned.best_step,
        },
        "looks": [asdict(look) | {"held_out": _to_json(look.held_out)} for look in trainer.state.looks],
    }
    target = out.resolve()
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        fresh.mkdir()
        write_adapter(model, base, fresh)
        (fresh / TUNE_RECORD).write_text(
            json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
