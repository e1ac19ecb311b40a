"""Priors on disk, beside their catalog: `prior-<model hash>-<prompt version>.safetensors`."""

import hashlib
import logging
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bidtrie.engine.tree_batch import Float32
from bidtrie.errors import CatalogError
from bidtrie.trie.prior import prior_covers
from bidtrie.trie.store import write_atomically
from bidtrie.trie.trie import Trie

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,128}")

log = logging.getLogger(__name__)


def prior_path(folder: Path, key: str) -> Path:
    """Where a catalog's prior for a model and prompt is; `key` names both."""
    if not _KEY.fullmatch(key):
        raise CatalogError(f"prior key {key!r}: expected 1 to 128 letters, digits, '-', '_' and '.'")
    return folder / f"prior-{key}.safetensors"


def save_prior(folder: Path, trie: Trie, key: str, prior: Float32) -> None:
    """Write a prior (float32 [covered]) into its catalog's folder; where that is read-only, it stays in memory only."""
    data = save({"prior": prior}, _identity(trie, prior))
    try:
        write_atomically(prior_path(folder, key), data)
    except OSError as error:
        log.warning("the prior cannot be stored and is computed at every start: %s", error)


def load_prior(folder: Path, trie: Trie, key: str) -> Float32 | None:
    """The stored prior of a trie (float32 [covered], see `prior_covers`); None if there is none that is sound."""
    path = prior_path(folder, key)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            prior: Float32 = file.get_tensor("prior")
    except (OSError, SafetensorError) as error:
        log.warning("the prior is computed again: %s: %s", path, error)
        return None
    sound = (
        prior.dtype == np.float32 and prior.shape == (prior_covers(trie),) and bool(np.isfinite(prior).all())
    )
    if not sound or metadata != _identity(trie, prior):
        log.warning("the prior is computed again: %s is damaged or of another catalog", path)
        return None
    return prior


def _identity(trie: Trie, prior: Float32) -> dict[str, str]:
    return {
        "catalog_version": trie.catalog_version,
        "tokenizer_hash": trie.tokenizer_hash,
        "checksum": hashlib.sha256(np.ascontiguousarray(prior).data).hexdigest(),
    }
