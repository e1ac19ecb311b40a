"""`bidtrie compress`, and `bidtrie model show` of what it made."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.cli.app import app
from bidtrie.errors import BidtrieError, InvalidInput, ModelError
from bidtrie.models.checkpoint import GroupTensor
from bidtrie.models.load import load_checkpoint
from reference import tiny_models
from reference.tiny_models import save_tiny_model
from typer.testing import CliRunner

#: Name on the command line: the format's own name in groups of 32, and what the head's becomes.
FORMATS = {
    "int8": ("int8-g32", "int8-g32"),
    "int4": ("int4-g32", "int4-g32"),
    "int4-min": ("int4-min-g32", "int4-min-g32"),
    "int4-table": ("int4-table-g32", "int4-table-g32"),
    "2:4": ("2:4-int4-g32", "int4-g32"),
    "1:4": ("1:4-int4-g32", "int4-g32"),
    "2:4-table": ("2:4-int4-table-g32", "int4-table-g32"),
    "1:4-table": ("1:4-int4-table-g32", "int4-table-g32"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_tiny_model("llama", folder)
    return folder


def run(*arguments: object) -> str:
    """Standard output of a command that must succeed; errors meant for users come as they are."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def run_json(*arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return answer


@pytest.mark.parametrize("format", FORMATS)
def test_formats(model: Path, tmp_path: Path, format: str) -> None:
    summary = run_json("compress", model, "--method", "rtn", "--format", format, "--out", tmp_path / "out")
    artefact = load_checkpoint(tmp_path / "out")
    layers, head = FORMATS[format]
    for name, tensor in artefact.tensors.items():
        if len(tensor.shape) == 2:
            is_head = name in ("model.embed_tokens.weight", "lm_head.weight")
            assert str(tensor.format) == (head if is_head else layers)
    assert summary["path"] == str(tmp_path / "out")
    assert (summary["method"], summary["format"], summary["group_size"]) == ("rtn", format, 32)
    assert summary["content_hash"] == artefact.content_hash
    assert summary["size_bytes"] == sum(tensor.nbytes for tensor in artefact.tensors.values())
    assert summary["reference_size_bytes"] > 2 * summary["size_bytes"]
    assert summary["float32_linears"] == []
    assert summary["seconds"] >= 0


def test_bits_per_weight_are_over_the_dense_weights(model: Path, tmp_path: Path) -> None:
    summary = run_json("compress", model, "--format", "2:4", "--group-size", 64, "--out", tmp_path / "out")
    stored = {"layers": 0, "head": 0}
    weights = {"layers": 0, "head": 0}
    for name, tensor in load_checkpoint(tmp_path / "out").tensors.items():
        if isinstance(tensor, GroupTensor):
            part = "head" if name in ("model.embed_tokens.weight", "lm_head.weight") else "layers"
            arrays = (tensor.codes, tensor.scales, tensor.minimums, tensor.table, tensor.positions)
            stored[part] += sum(8 * array.nbytes for array in arrays if array is not None)
            weights[part] += tensor.shape[0] * tensor.shape[1]
    assert summary["layers_bits_per_weight"] == round(stored["layers"] / weights["layers"], 3)
    assert summary["head_bits_per_weight"] == round(stored["head"] / weights["head"], 3) == 4.25
    # Rows of 64 have one scale, those of 96 two.
    assert 3.25 < summary["layers_bits_per_weight"] < 3.34


def test_head_format_and_group_size(model: Path, tmp_path: Path) -> None:
    run(
        *("compress", model, "--format", "1:4", "--group-size", "16"),
        *("--head-format", "int8", "--out", tmp_path / "out"),
    )
    tensors = load_checkpoint(tmp_path / "out").tensors
    assert str(tensors["lm_head.weight"].format) == "int8-g16"
    assert str(tensors["model.layers.0.mlp.up_proj.weight"].format) == "1:4-int4-g16"


def test_summary(model: Path, tmp_path: Path) -> None:
    text = run("compress", model, "--out", tmp_path / "out")
    assert "layers' linears: 4.5 bits a weight; embedding and head: 4.5" in text
    assert "MB (from 0.4 MB) in " in text
    assert str(tmp_path / "out") in text
    assert "float32" not in text
    assert "--method gptq loses much less" in text


def test_eight_bits_need_no_warning(model: Path, tmp_path: Path) -> None:
    assert "Rounded to the nearest" not in run(
        "compress", model, "--out", tmp_path / "out", "--format", "int8"
    )


def test_linears_that_no_format_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny_models._COMMON, "intermediate_size", 100)
    save_tiny_model("llama", tmp_path / "odd")
    text = run("compress", tmp_path / "odd", "--out", tmp_path / "out")
    assert (
        "left in float32, since their rows are not a multiple of 16: 2 linears, "
        "for example model.layers.0.mlp.down_proj"
    ) in text
    summary = run_json("compress", tmp_path / "odd", "--out", tmp_path / "again")
    assert summary["float32_linears"] == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    assert summary["layers_bits_per_weight"] > 4.5, "they count as what they are"
    ours, source = load_checkpoint(tmp_path / "out"), load_checkpoint(tmp_path / "odd")
    name = "model.layers.1.mlp.down_proj.weight"
    np.testing.assert_array_equal(ours.tensors[name].dequantize(), source.tensors[name].dequantize())
    shown = {
        each["name"]: each for each in run_json("model", "show", tmp_path / "out")["compression"]["linears"]
    }
    assert shown[name.removesuffix(".weight")]["format"] == "float32"
    assert shown[name.removesuffix(".weight")]["relative_error"] == 0


@pytest.mark.parametrize("size", [0, 8, 24, 48, 288, -32])
def test_group_sizes_that_there_are_not(model: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        run("compress", model, "--group-size", size, "--out", tmp_path / "out")
    assert caught.value.violations[0].field == "--group-size"
    assert f"{size}, expected 16 or a multiple of 32 up to 256" in str(caught.value)


def test_nothing_is_written_over(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the work is not begun."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    monkeypatch.setattr("bidtrie.compress.compressor.quantize", lambda *args, **options: pytest.fail("begun"))
    with pytest.raises(ModelError, match="is there already, expected a new or empty folder"):
        run("compress", model, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_show(model: Path, tmp_path: Path) -> None:
    run("compress", model, "--format", "2:4-table", "--out", tmp_path / "out")
    described = run_json("model", "show", tmp_path / "out")["compression"]
    source = load_checkpoint(model)
    assert described["method"] == "rtn"
    assert described["options"] == {"format": "2:4-table", "group_size": 32, "head_format": "int4-table"}
    assert described["reference"] == {"name": "tiny-llama", "content_hash": source.content_hash}
    tensors = load_checkpoint(tmp_path / "out").tensors
    assert len(described["linears"]) == 2 * 7 + 2
    for linear in described["linears"]:
        name = f"{linear['name']}.weight"
        tensor = tensors[name]
        assert linear["format"] == str(tensor.format)
        assert linear["shape"] == list(tensor.shape)
        assert linear["size_bytes"] == tensor.nbytes
        assert linear["bits_per_weight"] == round(tensor.bits_per_weight, 3)
        weight = source.tensors[name].dequantize().astype(np.float64)
        error = np.linalg.norm(weight - tensor.dequantize()) / np.linalg.norm(weight)
        assert linear["relative_error"] == pytest.approx(error, rel=1e-9)
    text = run("model", "show", tmp_path / "out")
    for part in (
        "rtn (format 2:4-table, group_size 32,",
        "tiny-llama, content hash",
        source.content_hash,
        "model.layers.1.self_attn.q_proj",
        "2:4-int4-table-g32",
        "int4-table-g32",
    ):
        assert part in text
    rows = [line.split() for line in text.splitlines() if "model.layers.1.mlp.up_proj" in line]
    up_proj = tensors["model.layers.1.mlp.up_proj.weight"]
    assert rows[0][1:4] == [
        "2:4-int4-table-g32",
        f"{round(up_proj.bits_per_weight, 3):g}",
        f"{up_proj.nbytes:,}",
    ]


def test_calibrated(model: Path, tmp_path: Path) -> None:
    """The package's own text, in a few sequences; the record says what was done, and the same again gives the same."""
    options = ("--method", "gptq", "--sequences", 40, "--sequence-tokens", 64, "--seed", 1)
    first = run_json("compress", model, *options, "--out", tmp_path / "out")
    assert first["method"] == "gptq"
    assert (first["data"], first["sequences"], first["sequence_tokens"]) == (["package"], 40, 64)
    artefact = load_checkpoint(tmp_path / "out")
    assert artefact.compression is not None
    assert artefact.compression.method == "gptq"
    assert all(linear.proxy_loss is not None for linear in artefact.compression.linears.values())
    again = run_json("compress", model, *options, "--out", tmp_path / "again")
    assert again["content_hash"] == first["content_hash"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out"], "no work is left behind"


def test_calibrated_on_data_and_recovered(model: Path, tmp_path: Path) -> None:
    ads = tmp_path / "ads.txt"
    ads.write_text("\n".join(f"Kettles that boil in {i} seconds, in every colour." for i in range(200)))
    summary = run_json(
        *("compress", model, "--method", "gptq", "--format", "2:4", "--data", ads, "--sequences", 32),
        *("--sequence-tokens", 64, "--recover-steps", 2, "--recover-rate", 0.01, "--out", tmp_path / "out"),
    )
    assert summary["data"] == ["ads.txt"]
    assert summary["recover_steps"] == 2
    assert len(summary["recover_losses"]) == 1
    assert load_checkpoint(tmp_path / "out").compression is not None


def test_flags_of_calibration(model: Path, tmp_path: Path) -> None:
    for flags in (("--data", "ads.txt"), ("--recover-steps", 3)):
        with pytest.raises(
            InvalidInput, match=f"{flags[0]}: is given with --method rtn, expected --method gptq"
        ):
            run("compress", model, "--method", "rtn", *flags, "--out", tmp_path / "out")
    (tmp_path / "ads.txt").write_text("One ad.")
    with pytest.raises(InvalidInput, match="--data: holds"):
        run("compress", model, "--method", "gptq", "--data", tmp_path / "ads.txt", "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ads.txt"]


def test_without_torch_it_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bidtrie.compress.calibrated", None)
    with pytest.raises(BidtrieError, match=r'--method gptq needs: pip install "bidtrie\[compress\]"'):
        run("compress", model, "--method", "gptq", "--out", tmp_path / "out")


def test_show_of_other_checkpoints_is_as_before(model: Path) -> None:
    assert run_json("model", "show", model)["compression"] is None
    assert "compressed by" not in run("model", "show", model)


def test_help_has_an_example() -> None:
    assert "Example: bidtrie compress smollm2-135m --method gptq" in " ".join(
        run("compress", "--help").split()
    )


def test_smollm2(smollm2_path: Path, tmp_path: Path) -> None:
    """The default model, whose file is a 4-bit grid with minimums itself: such a format is nearly exact."""
    summary = run_json("compress", smollm2_path, "--format", "int4-min", "--out", tmp_path / "out")
    assert summary["layers_bits_per_weight"] == 5
    artefact, source = load_checkpoint(tmp_path / "out"), load_checkpoint(smollm2_path)
    assert artefact.tokenizer.content_hash == source.tokenizer.content_hash
    assert artefact.tokenizer.chat_template == source.tokenizer.chat_template
    assert artefact.config.eos_token_ids == source.config.eos_token_ids
    np.testing.assert_array_equal(artefact.config.inv_freq, source.config.inv_freq)
    assert artefact.compression is not None
    errors = {name: linear.relative_error for name, linear in artefact.compression.linears.items()}
    assert max(error for name, error in errors.items() if name != "model.embed_tokens") < 0.02
    assert errors["model.embed_tokens"] > 0.05, "its table is 8-bit in the file"
