"""Priors of large catalogs stop after some nodes; priors of small ones are what they were."""

from pathlib import Path

import numpy as np
import pytest
from bidtrie.scheduling.job import run_alone
from bidtrie.serving.loaded_catalog import load_prepared
from bidtrie.serving.loaded_model import load_model
from bidtrie.settings import Settings
from bidtrie.trie import prior
from bidtrie.trie.prior import neutral_log_probabilities, prior_covers
from bidtrie.trie.prior_store import load_prior, prior_path, save_prior
from bidtrie.trie.store import save_catalog
from reference.reference_engine import ReferenceEngine
from reference.tiny_models import random_checkpoint, save_tiny_model
from reference.tries import random_trie

PROMPT = [72, 101, 121, 32, 84]


def whole_groups(trie, covered: int) -> bool:
    return all(
        trie.children(node).stop <= covered or trie.children(node).start >= covered
        for node in range(len(trie))
        if len(trie.children(node))
    )


def test_coverage_is_as_large_as_whole_groups_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = random_trie(4, 60).trie
    for limit in range(len(trie) + 3):
        monkeypatch.setattr(prior, "PRIOR_NODES", limit)
        covered = prior_covers(trie)
        assert covered <= max(limit, trie.first_child[1])
        assert whole_groups(trie, covered)
        larger = range(covered + 1, min(limit, len(trie)) + 1)
        assert not any(whole_groups(trie, other) for other in larger)
    assert covered == len(trie)
    # The control: a coverage that cuts a group in two is told from one that does not.
    group = next(trie.children(node) for node in range(len(trie)) if len(trie.children(node)) > 1)
    assert not whole_groups(trie, group.stop - 1)


def test_a_limited_prior_is_the_beginning_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ReferenceEngine(random_checkpoint(3), max_nodes=24)
    trie = random_trie(6, 60).trie
    whole = run_alone(engine, neutral_log_probabilities(engine, trie, PROMPT))
    assert len(whole) == prior_covers(trie) == len(trie)
    for limit in (1, 20, 55, 90):
        monkeypatch.setattr(prior, "PRIOR_NODES", limit)
        shares: list[float] = []
        free = engine.free_slots()
        part = run_alone(engine, neutral_log_probabilities(engine, trie, PROMPT, progress=shares.append))
        assert engine.free_slots() == free
        assert len(part) == prior_covers(trie) < len(trie)
        np.testing.assert_allclose(part, whole[: len(part)], atol=1e-6)
        assert (part[1:] < 0).all()
        assert shares == sorted(shares)
        assert shares[0] == 0


def test_a_stored_prior_must_cover_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trie = random_trie(4, 60).trie
    whole = np.linspace(-1, 0, len(trie), dtype=np.float32)
    save_prior(tmp_path, trie, "key", whole)
    loaded = load_prior(tmp_path, trie, "key")
    assert loaded is not None
    assert (loaded == whole).all()
    monkeypatch.setattr(prior, "PRIOR_NODES", 30)
    assert load_prior(tmp_path, trie, "key") is None
    save_prior(tmp_path, trie, "key", whole[: prior_covers(trie)])
    assert load_prior(tmp_path, trie, "key") is not None
    prior_path(tmp_path, "key").write_bytes(b"damaged")
    assert load_prior(tmp_path, trie, "key") is None


def test_nodes_without_a_prior_have_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    save_tiny_model("llama", tmp_path / "model", 0)
    loaded = load_model(Settings(model=str(tmp_path / "model"), threads=1, kv_slots=4096))
    engine = loaded.engine
    try:
        catalog = random_trie(4, 30).catalog

        def prepared(progress=lambda done: None):
            folder = save_catalog(catalog, "test")
            tokenizer = loaded.checkpoint.tokenizer
            return load_prepared(folder, tokenizer, engine, lambda job: run_alone(engine, job), progress)

        whole = prepared()
        monkeypatch.setattr(prior, "PRIOR_NODES", 40)
        shares: list[float] = []
        limited = prepared(shares.append)
    finally:
        engine.shutdown()
    covered = prior_covers(limited.trie)
    assert 1 < covered < len(limited.trie) == len(limited.priors[0])
    assert (limited.priors[0][:covered] == whole.priors[0][:covered]).all()
    assert not limited.priors[0][covered:].any()
    assert whole.priors[0][covered:].all()
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
