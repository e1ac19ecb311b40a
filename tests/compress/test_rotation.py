"""Rotating the residual stream changes the weights, and not what the model computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bidtrie.compress import rotation
from bidtrie.compress.rotation import random_rotation, rotate
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.errors import InvalidInput
from bidtrie.models.artefact_writer import write_checkpoint
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.models.tensor import Tensor
from reference.llama import ReferenceLlama
from reference.tiny_models import CHECKPOINTS, KINDS, save_tiny_model
from reference.transformers_logits import path_logits

TOKENS = (5, 17, 40, 200, 3, 99, 256, 12)


def native_logits(checkpoint: Checkpoint) -> np.ndarray:
    engine = NativeEngine(checkpoint, threads=1, slots=16, max_nodes=16)
    count = len(TOKENS)
    output = engine.step(TreeBatch.of(TOKENS, engine.open(), range(-1, count - 1), range(count)))
    engine.shutdown()
    return output.logits.reshape(count, -1)


def test_a_rotation_is_orthogonal_and_its_seed_decides_it() -> None:
    matrix = random_rotation(96, 7)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(96), atol=1e-13)
    np.testing.assert_array_equal(matrix, random_rotation(96, 7))
    assert np.abs(matrix - random_rotation(96, 8)).max() > 0.1
    # Uniform over orthogonal matrices: without the signs of R, diagonals lean to one side.
    assert abs(np.mean([np.trace(random_rotation(16, seed)) for seed in range(300)])) < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computes_the_same(kind: str, tmp_path: Path) -> None:
    model = save_tiny_model(kind, tmp_path / "model")
    expected = path_logits(model, TOKENS)
    rotated = rotate(load_checkpoint(tmp_path / "model"), 3)
    np.testing.assert_allclose(native_logits(rotated), expected, atol=1e-4)
    # And what is written reads back as the same function, in transformers too.
    from transformers import AutoModelForCausalLM

    write_checkpoint(tmp_path / "rotated", rotated)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "rotated").eval()
    np.testing.assert_allclose(path_logits(again, TOKENS), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["float32", "float32-odd", "q4_1-odd"])
def test_float64_computes_the_same(kind: str) -> None:
    checkpoint = CHECKPOINTS[kind]()
    rotated = rotate(checkpoint, 0)
    expected = ReferenceLlama(checkpoint).logits(TOKENS)
    np.testing.assert_allclose(ReferenceLlama(rotated).logits(TOKENS), expected, atol=1e-5)
    assert not rotated.config.tie_word_embeddings
    assert rotated.content_hash != checkpoint.content_hash
    assert rotated.content_hash != rotate(checkpoint, 1).content_hash
    for name, tensor in rotated.tensors.items():
        if name.endswith("norm.weight") and "q_norm" not in name and "k_norm" not in name:
            assert (tensor.dequantize() == 1).all(), name
    old, new = (
        each.tensors["model.layers.1.mlp.up_proj.weight"].dequantize() for each in (checkpoint, rotated)
    )
    assert np.abs(old - new).max() > 0.1


def test_a_matrix_that_is_not_orthogonal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the comparison above sees a rotation that is one in a hundred off."""
    checkpoint = CHECKPOINTS["float32"]()
    expected = ReferenceLlama(checkpoint).logits(TOKENS)
    matrix = random_rotation(64, 0)
    matrix[3] *= 1.01
    monkeypatch.setattr(rotation, "random_rotation", lambda size, seed: matrix)
    wrong = ReferenceLlama(rotation.rotate(checkpoint, 0)).logits(TOKENS)
    assert np.abs(wrong - expected).max() > 1e-3


def test_gains_left_where_they_are_are_noticed() -> None:
    """Negative control: norm gains that come back after the rotation do not commute with it."""
    checkpoint = CHECKPOINTS["float32"]()
    rotated = rotate(checkpoint, 0)
    name = "model.layers.0.input_layernorm.weight"
    wrong = replace(rotated, tensors={**rotated.tensors, name: checkpoint.tensors[name]})
    difference = ReferenceLlama(wrong).logits(TOKENS) - ReferenceLlama(checkpoint).logits(TOKENS)
    assert np.abs(difference).max() > 1e-2
    assert isinstance(rotated.tensors[name], Tensor)


def test_negative_seeds_are_errors() -> None:
    with pytest.raises(InvalidInput, match="--rotate: -1, expected a seed of 0 or more"):
        rotate(CHECKPOINTS["float32"](), -1)
