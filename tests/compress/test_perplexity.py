"""Perplexity against transformers' own loss, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bidtrie.compress import perplexity as measuring
from bidtrie.compress.llama import Llama
from bidtrie.compress.perplexity import perplexity
from bidtrie.models.load import load_checkpoint
from reference.tiny_models import save_tiny_model
from reference.transformers_logits import path_logits


def test_perplexity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_BATCH_TOKENS", 64)
    theirs = save_tiny_model("llama-tied", tmp_path / "tiny")
    tokens = np.random.default_rng(0).integers(0, 300, (5, 32))
    nats = []
    for row in tokens:
        logits = torch.from_numpy(path_logits(theirs, row.tolist())).double()
        nats += (-torch.log_softmax(logits, dim=-1)[np.arange(31), row[1:]]).tolist()
    assert len(nats) == 5 * 31
    found = perplexity(Llama(load_checkpoint(tmp_path / "tiny")), tokens)
    assert found == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert perplexity(Llama(load_checkpoint(tmp_path / "tiny")), tokens[:, ::-1].copy()) != pytest.approx(
        found, rel=1e-3
    )
