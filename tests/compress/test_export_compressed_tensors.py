"""The compressed-tensors export, unpacked again by code that knows nothing of ours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.cli.app import app
from bidtrie.compress import export_compressed_tensors as exporting
from bidtrie.compress.compressor import choose_formats, compress, write_compressed
from bidtrie.compress.export_compressed_tensors import export_compressed_tensors
from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat
from bidtrie.models.layout import is_head
from bidtrie.models.load import load_checkpoint
from models.tiny_artefacts import write_tiny_artefact
from reference import tiny_models
from reference.tiny_models import save_tiny_model
from safetensors.numpy import load_file
from typer.testing import CliRunner

INT4, INT8 = GroupFormat(4, 32), GroupFormat(8, 32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("llama")
    save_tiny_model("llama", folder)
    return load_checkpoint(folder)


def unpacked(arrays: dict[str, np.ndarray], linear: str, bits: int, group_size: int) -> np.ndarray:
    """float64 [rows, cols] as the format's description has it, code by code."""
    rows, cols = arrays[f"{linear}.weight_shape"].tolist()
    packed = arrays[f"{linear}.weight_packed"]
    scale = arrays[f"{linear}.weight_scale"].astype(np.float64)
    assert packed.dtype == np.int32
    assert packed.shape == (rows, cols * bits // 32)
    assert scale.shape == (rows, cols // group_size)
    weight = np.empty((rows, cols))
    for row in range(rows):
        bitstream = sum((int(word) & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(packed[row]))
        for col in range(cols):
            code = (bitstream >> (bits * col) & (2**bits - 1)) - 2 ** (bits - 1)
            weight[row, col] = code * scale[row, col // group_size]
    return weight


@pytest.mark.parametrize("format", [INT4, INT8], ids=str)
def test_what_is_unpacked_is_what_was_packed(source: Checkpoint, tmp_path: Path, format: GroupFormat) -> None:
    artefact = write_tiny_artefact(tmp_path / "artefact", source, format, GroupFormat(4, 64, minimum=True))
    export_compressed_tensors(artefact, tmp_path / "out")
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    seen = 0
    for name, tensor in artefact.tensors.items():
        linear = name.removesuffix(".weight")
        if len(tensor.shape) == 2 and not is_head(linear):
            assert name not in arrays
            np.testing.assert_array_equal(
                unpacked(arrays, linear, format.bits, format.group_size), tensor.dequantize()
            )
            seen += 1
        else:
            np.testing.assert_array_equal(arrays[name], tensor.dequantize())
    assert seen == 14
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    quantization = config["quantization_config"]
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["format"] == "pack-quantized"
    assert quantization["ignore"] == ["lm_head"]
    (group,) = quantization["config_groups"].values()
    assert len(group["targets"]) == 14
    assert group["weights"] == {
        "num_bits": format.bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 32,
        "dynamic": False,
    }
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_the_comparison_sees_a_wrong_sign_bit(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: 8-bit codes as they are, not moved to unsigned."""
    artefact = write_tiny_artefact(tmp_path / "artefact", source, INT8)
    monkeypatch.setattr(exporting, "_packed", lambda tensor: tensor.codes.view("<i4"))
    export_compressed_tensors(artefact, tmp_path / "out")
    name = "model.layers.0.self_attn.q_proj"
    wrong = unpacked(load_file(tmp_path / "out" / "model.safetensors"), name, 8, 32)
    assert np.abs(wrong - artefact.tensors[f"{name}.weight"].dequantize()).max() > 0.1


def mixed(source: Checkpoint, out: Path, **formats: GroupFormat) -> Checkpoint:
    """An artefact in int4, but for the linears named by their last part."""
    chosen, _ = choose_formats(source.config, INT4, INT4)
    chosen = {name: formats.get(name.rpartition(".")[2], format) for name, format in chosen.items()}
    return write_compressed(out, source, list(compress(source, chosen)), "rtn", {})


def test_formats_that_differ_are_groups_of_their_own(source: Checkpoint, tmp_path: Path) -> None:
    artefact = mixed(source, tmp_path / "artefact", down_proj=INT8, gate_proj=INT8, up_proj=INT8)
    export_compressed_tensors(artefact, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    assert sorted((group["weights"]["num_bits"], len(group["targets"])) for group in groups) == [
        (4, 8),
        (8, 6),
    ]
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    np.testing.assert_array_equal(
        unpacked(arrays, name, 8, 32), artefact.tensors[f"{name}.weight"].dequantize()
    )


INEXPRESSIBLE = [
    ("k_proj", GroupFormat(4, 32, minimum=True), "(int4-min-g32: minimums)"),
    ("o_proj", GroupFormat(4, 32, table=True), "(int4-table-g32: a table)"),
    ("down_proj", GroupFormat(4, 32, pattern="2:4"), "(2:4-int4-g32: positions of sparse weights)"),
    ("down_proj", GroupFormat(4, 64), "(int4-g64: rows of 96 end in a short group)"),
    ("o_proj", GroupFormat(4, 16), "(int4-g16: groups of 16)"),
    ("v_proj", GroupFormat(8, 32), "(int8-g32 beside q_proj's int4-g32: they are computed as one)"),
    ("up_proj", GroupFormat(4, 64), "(int4-g64 beside gate_proj's int4-g32: they are computed as one)"),
]


@pytest.mark.parametrize(("linear", "format", "expected"), INEXPRESSIBLE, ids=lambda each: str(each))
def test_what_cannot_be_expressed_is_named(
    source: Checkpoint, tmp_path: Path, linear: str, format: GroupFormat, expected: str
) -> None:
    artefact = mixed(source, tmp_path / "artefact", **{linear: format})
    with pytest.raises(ModelError) as caught:
        export_compressed_tensors(artefact, tmp_path / "out")
    for layer in range(2):
        part = "mlp" if linear in ("down_proj", "up_proj") else "self_attn"
        assert f"model.layers.{layer}.{part}.{linear} {expected}" in str(caught.value)
    assert "Expected int4 or int8 in groups of 32, 64, 128 that divide the rows" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_many_are_counted(source: Checkpoint, tmp_path: Path) -> None:
    artefact = write_tiny_artefact(tmp_path / "artefact", source, GroupFormat(4, 32, minimum=True))
    with pytest.raises(ModelError, match="; and 9 more"):
        export_compressed_tensors(artefact, tmp_path / "out")


def test_models_that_are_not_compressed(source: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not compressed, expected a folder that bidtrie compress wrote"):
        export_compressed_tensors(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_of_disk(source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = write_tiny_artefact(tmp_path / "artefact", source, INT4)

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "save_file", fail)
    with pytest.raises(ModelError, match="out: cannot be written: No space left on device"):
        export_compressed_tensors(artefact, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["artefact"]


def test_linears_left_in_float32_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny_models._COMMON, "intermediate_size", 100)
    save_tiny_model("llama", tmp_path / "odd")
    artefact = write_tiny_artefact(tmp_path / "artefact", load_checkpoint(tmp_path / "odd"), INT4)
    export_compressed_tensors(artefact, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    down = [f"model.layers.{layer}.mlp.down_proj" for layer in range(2)]
    assert config["quantization_config"]["ignore"] == ["lm_head", *down]
    assert f"{down[0]}.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_command(source: Checkpoint, tmp_path: Path) -> None:
    artefact = write_tiny_artefact(tmp_path / "artefact", source, INT4)
    command = ["model", "export", str(tmp_path / "artefact"), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exception is None
    printed = json.loads(result.stdout)
    assert printed["path"] == str(tmp_path / "out")
    assert printed["of"] == artefact.content_hash
    assert printed["size_bytes"] == sum(each.stat().st_size for each in (tmp_path / "out").iterdir())
    changed = replace(artefact, huggingface_config=None)
    with pytest.raises(ModelError, match="rotary frequencies cannot be said"):
        export_compressed_tensors(changed, tmp_path / "again")
