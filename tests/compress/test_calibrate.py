"""Second moments of the linears' inputs against transformers' own inputs, caught by hooks, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bidtrie.compress import calibrate as calibrating
from bidtrie.compress.calibrate import calibrate, steps
from bidtrie.compress.llama import Llama
from bidtrie.models.layout import linear_shapes
from bidtrie.models.load import load_checkpoint
from reference.tiny_models import save_tiny_model


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_hessians(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = save_tiny_model(kind, tmp_path / kind)
    monkeypatch.setattr(calibrating, "_BATCH_TOKENS", 64)
    tokens = np.random.default_rng(1).integers(0, 300, (5, 32))
    seen: dict[str, torch.Tensor] = {}
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: seen.update({name: inputs[0].double()})
            )
    with torch.inference_mode():
        theirs(torch.from_numpy(tokens), use_cache=False)
    found = {
        name: inputs.hessian
        for inputs in calibrate(Llama(load_checkpoint(tmp_path / kind)), tokens)
        for name in inputs.linears
    }
    assert set(found) == set(seen)
    for name, hessian in found.items():
        x = seen[name].flatten(0, 1).numpy()
        expected = x.T @ x / len(x)
        np.testing.assert_allclose(hessian, expected, atol=1e-4 * np.abs(expected).max())


def test_a_changed_weight_reaches_what_comes_later(tmp_path: Path) -> None:
    """And nothing that came before."""
    save_tiny_model("llama", tmp_path / "tiny")
    checkpoint = load_checkpoint(tmp_path / "tiny")
    tokens = np.arange(32).reshape(1, 32)
    plain = {name: each.hessian for each in calibrate(Llama(checkpoint), tokens) for name in each.linears}
    model = Llama(checkpoint)
    changed = "model.layers.0.mlp.gate_proj"
    seen = []
    for step in steps(model, tokens):
        hessian = calibrating.second_moments(step.inputs)
        seen += [(name, np.array_equal(hessian, plain[name])) for name in step.linears]
        if changed in step.linears:
            model.weights[f"{changed}.weight"] = model.weights[f"{changed}.weight"] * 2
    same = [name for name, equal in seen if equal]
    assert (
        same == [name for name in linear_shapes(checkpoint.config) if name.startswith("model.layers.0.")][:6]
    ), "up to gate_proj and up_proj of the first block"
