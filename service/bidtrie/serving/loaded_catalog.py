"""A catalog prepared for a model: its token trie, its prior and its retriever."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Float32
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.retrieval.base import Retriever
from bidtrie.retrieval.hybrid import load_or_build_hybrid
from bidtrie.scheduling.job import Job
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prior import neutral_log_probabilities, prior_covers
from bidtrie.trie.prior_store import load_prior, save_prior
from bidtrie.trie.prompt import PROMPT_VERSION, fixed_tokens, neutral_contexts, render, terminator
from bidtrie.trie.store import load_catalog, load_or_build_trie
from bidtrie.trie.trie import Trie

logger = logging.getLogger(__name__)

#: Runs a job to its end: by a scheduler among others, or on an engine alone.
RunJob = Callable[[Job[Float32]], Float32]


@dataclass(frozen=True, slots=True)
class LoadedCatalog:
    """A catalog with what ranking it takes.

    priors: one a compression level, float32 [nodes], for `search`; 0 for nodes that have none (`prior_covers`).
    """

    catalog: Catalog
    trie: Trie
    priors: tuple[Float32, ...]
    retriever: Retriever


def load_prepared(
    folder: Path,
    tokenizer: Tokenizer,
    engine: Engine,
    run: RunJob,
    progress: Callable[[float], None] = lambda done: None,
) -> LoadedCatalog:
    """Load a catalog; make and save its trie and prior for this model where they are missing.

    `progress` is called with the share of the prior that is done; a prior found on disk takes no time.
    """
    catalog = load_catalog(folder)
    trie = load_or_build_trie(
        folder, catalog, tokenizer.encode, terminator(tokenizer), tokenizer.content_hash
    )
    prior = _load_or_compute_prior(folder, trie, tokenizer, engine, run, progress)
    return LoadedCatalog(catalog, trie, (prior,), load_or_build_hybrid(folder, catalog))


def with_level(
    loaded: LoadedCatalog, folder: Path, tokenizer: Tokenizer, engine: Engine, run: RunJob
) -> LoadedCatalog:
    """The same catalog, prepared for one more compression level, whose tokenizer is the same."""
    prior = _load_or_compute_prior(folder, loaded.trie, tokenizer, engine, run, lambda done: None)
    return replace(loaded, priors=(*loaded.priors, prior))


def _load_or_compute_prior(
    folder: Path,
    trie: Trie,
    tokenizer: Tokenizer,
    engine: Engine,
    run: RunJob,
    progress: Callable[[float], None],
) -> Float32:
    key = f"{engine.spec.model_hash}-{PROMPT_VERSION}"
    prior = load_prior(folder, trie, key)
    if prior is None:
        # Minutes for a large catalog: whoever waits for a server should know what for.
        logger.info(
            "preparing a catalog for the model, once; `bidtrie catalog build --model` does it beforehand",
            extra={"catalog": folder.name},
        )
        prior = _compute_prior(trie, tokenizer, engine, run, progress)
        save_prior(folder, trie, key, prior)
    if len(prior) == len(trie):
        return prior
    # Zeros that are never written take no memory.
    every = np.zeros(len(trie), np.float32)
    every[: len(prior)] = prior
    return every


def _compute_prior(
    trie: Trie, tokenizer: Tokenizer, engine: Engine, run: RunJob, progress: Callable[[float], None]
) -> Float32:
    contexts = neutral_contexts()
    total = np.zeros(prior_covers(trie), np.float64)
    for done, context in enumerate(contexts):

        def report(share: float, done: int = done) -> None:
            progress((done + share) / len(contexts))

        prompt = [*fixed_tokens(tokenizer), *render(context, tokenizer, max_tokens=64)]
        total += run(neutral_log_probabilities(engine, trie, prompt, progress=report))
    progress(1.0)
    mean: Float32 = (total / len(contexts)).astype(np.float32)
    return mean
