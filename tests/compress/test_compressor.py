"""Which linears are compressed, of what reference, and how large the error is."""

from collections.abc import Iterator

import numpy as np
import pytest
from bidtrie.compress.compressor import choose_formats, compress, relative_error
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.errors import ModelError
from bidtrie.models import group_tensor
from bidtrie.models.group_tensor import GroupFormat
from reference.tiny_models import CHECKPOINTS, random_checkpoint

INT4, INT8 = GroupFormat(4, 32), GroupFormat(8, 32)


@pytest.mark.parametrize("tied", [True, False])
def test_layers_and_head_have_formats_of_their_own(tied: bool) -> None:
    formats, left_out = choose_formats(random_checkpoint(tied=tied).config, INT4, INT8)
    assert left_out == []
    heads = {"model.embed_tokens"} if tied else {"model.embed_tokens", "lm_head"}
    assert {name for name, format in formats.items() if format == INT8} == heads
    layers = {
        f"model.layers.{i}.{name}"
        for i in range(2)
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    }
    assert {name for name, format in formats.items() if format == INT4} == layers


def test_rows_that_no_format_fits_are_left_out() -> None:
    formats, left_out = choose_formats(random_checkpoint(intermediate=100).config, INT4, INT4)
    assert left_out == ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    assert len(formats) == 2 * 6 + 2
    nothing = random_checkpoint(hidden=60, intermediate=100, heads=3, kv_heads=1, head_dim=20).config
    with pytest.raises(ModelError, match="no linear has rows of a multiple of 16 columns"):
        choose_formats(nothing, INT4, INT4)


@pytest.mark.parametrize("kind", ["float32", "q4_1"])
def test_the_reference_is_what_the_checkpoint_stands_for(kind: str) -> None:
    checkpoint = CHECKPOINTS[kind]()
    formats, _ = choose_formats(checkpoint.config, INT4, INT8)
    done = list(compress(checkpoint, formats))
    assert [linear.name for linear in done] == list(formats)
    for linear in done:
        weight = checkpoint.tensors[f"{linear.name}.weight"].dequantize()
        expected = quantize(weight, formats[linear.name])
        np.testing.assert_array_equal(linear.tensor.codes, expected.codes)
        np.testing.assert_array_equal(linear.tensor.scales, expected.scales)
        assert linear.record.format == str(formats[linear.name])
        assert linear.record.bits_per_weight == linear.tensor.bits_per_weight
        difference = weight.astype(np.float64) - linear.tensor.dequantize()
        assert linear.record.relative_error == pytest.approx(
            np.linalg.norm(difference) / np.linalg.norm(weight.astype(np.float64)), rel=1e-9
        )
        # Q8_0 is a grid that int8 reproduces; the rest is rounded.
        on_grid = kind == "q4_1" and formats[linear.name] == INT8
        assert (linear.record.relative_error == 0) == on_grid


def test_linears_are_compressed_one_at_a_time() -> None:
    """So that progress can be shown, and memory stays small."""
    checkpoint = random_checkpoint()
    work = compress(checkpoint, {"lm_head": INT4, "no such linear": INT4})
    assert isinstance(work, Iterator)
    assert next(work).name == "lm_head"
    with pytest.raises(KeyError):
        next(work)


def test_relative_error(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.array([[3, 4], [0, 0], [12, 0]], np.float32)
    assert relative_error(weight, weight) == 0
    assert relative_error(weight, np.zeros_like(weight)) == 1
    assert relative_error(np.zeros_like(weight), weight) == 0, "there is nothing to be relative to"
    changed = weight + np.array([[1.3, 0], [0, 0], [0, 0]], np.float32)
    assert relative_error(weight, changed) == pytest.approx(0.1)
    monkeypatch.setattr(group_tensor, "_CHUNK_WEIGHTS", 2)
    assert relative_error(weight, changed) == pytest.approx(0.1)


def test_errors_do_not_overflow() -> None:
    weight = np.full((2, 32), 1e30, np.float32)
    assert relative_error(weight, weight * np.float32(1.5)) == pytest.approx(0.5)
