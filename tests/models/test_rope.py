"""Rotary frequencies against transformers, in the configuration spelling of its versions 4 and 5."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields
from bidtrie.models.load import load_checkpoint
from bidtrie.models.rope import inverse_frequencies
from models.tiny_files import change_json
from reference.tiny_models import save_tiny_model

LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "llama3": {"rope_type": "llama3", **LLAMA3},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn-whole": {"rope_type": "yarn", "factor": 8.0},
    "yarn-attention": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.25,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.707,
        "mscale_all_dim": 0.5,
    },
    "yarn-exact-bounds": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "truncate": False,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rope")
    save_tiny_model("llama", folder)
    return folder


def spell(scaling: dict[str, Any], version: int, theta: float) -> dict[str, Any]:
    if version == 5:
        return {"rope_parameters": {**scaling, "rope_theta": theta}, "rope_theta": ..., "rope_scaling": ...}
    old = None if scaling["rope_type"] == "default" else scaling
    return {"rope_theta": theta, "rope_scaling": old, "rope_parameters": ...}


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("name", SCALINGS)
def test_equal_to_transformers(folder: Path, name: str, theta: float, version: int) -> None:
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    change_json(folder / "config.json", **spell(SCALINGS[name], version, theta))
    ours = load_checkpoint(folder).config
    theirs = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder))
    np.testing.assert_allclose(ours.inv_freq, theirs.inv_freq.numpy(), rtol=2e-6)
    assert ours.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-6)
    if name not in ("default", "dynamic"):
        # The comparison can fail: unscaled frequencies are far away.
        plain, _ = inverse_frequencies(Fields("x", {"rope_theta": theta}), ours.head_dim, 256)
        assert not np.allclose(plain, theirs.inv_freq.numpy(), rtol=1e-2)


def test_old_type_key_is_read() -> None:
    old = inverse_frequencies(Fields("x", {"type": "linear", "factor": 2.0}), 16, 128)[0]
    new = inverse_frequencies(Fields("x", {"rope_type": "linear", "factor": 2.0}), 16, 128)[0]
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "longrope"}, "rope_type 'longrope' is unknown, expected default"),
        ({"rope_type": "linear"}, "factor is missing"),
        ({"rope_type": "linear", "factor": 0}, "factor is 0, expected a positive number"),
        ({"rope_type": "linear", "factor": "4"}, "factor is '4', expected a number"),
        ({"rope_type": "linear", "factor": float("nan")}, "expected a finite number"),
        ({"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}, "expected more than low_freq_factor"),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}, "expected more than 1"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": -1.0}, "beta_fast is -1.0, expected a positive"),
        ({"partial_rotary_factor": 0.5}, "partial rotation is not supported"),
        ({"rope_type": 7}, "rope_type is 7, expected a string"),
    ],
)
def test_wrong_settings_are_named(rope: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        inverse_frequencies(Fields("config.json", rope), 16, 128)
