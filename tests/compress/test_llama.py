"""The torch forward against transformers, for every kind of model of the Llama family."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bidtrie.compress.llama import Llama
from bidtrie.models.load import load_checkpoint
from reference.tiny_models import KINDS, save_tiny_model
from reference.transformers_logits import path_logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str, tmp_path: Path) -> None:
    theirs = save_tiny_model(kind, tmp_path / kind)
    ours = Llama(load_checkpoint(tmp_path / kind))
    tokens = np.random.default_rng(0).integers(0, 300, (2, 40))
    with torch.inference_mode():
        logits = ours.forward(torch.from_numpy(tokens)).numpy()
    for row, mine in zip(tokens, logits, strict=True):
        np.testing.assert_allclose(mine, path_logits(theirs, row.tolist()), atol=2e-4)


def test_another_weight_is_another_function(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "tiny")
    model = Llama(load_checkpoint(tmp_path / "tiny"))
    tokens = torch.arange(20)[None]
    before = model.forward(tokens)
    model.weights["model.layers.1.self_attn.k_proj.weight"] = -model.weights[
        "model.layers.1.self_attn.k_proj.weight"
    ]
    assert (model.forward(tokens) - before).abs().max() > 0.1
