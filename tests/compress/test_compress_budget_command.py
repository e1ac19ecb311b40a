"""`bidtrie compress` under a budget, as a ladder, and rotated first."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.cli.app import app
from bidtrie.compress import calibrated, cost_table
from bidtrie.errors import InvalidInput, ModelError
from bidtrie.models import artefact_writer
from bidtrie.models.group_tensor import GroupTensor
from bidtrie.models.load import load_checkpoint
from bidtrie.serving.compression_level import load_levels, shut_down
from bidtrie.settings import Settings
from reference import tiny_models
from reference.llama import ReferenceLlama
from reference.tiny_models import save_tiny_model
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

FEW = ("--sequences", 8, "--sequence-tokens", 256)


@pytest.fixture(autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setattr(cost_table, "_STACK_WEIGHTS", 100_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    with pytest.MonkeyPatch.context() as patch:
        # Room for the service's prompts.
        patch.setitem(tiny_models._COMMON, "max_position_embeddings", 4096)
        save_tiny_model("llama", folder)
    return folder


def run(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["compress", *map(str, arguments), *map(str, FEW), "--json"])
    if result.exception is not None:
        raise result.exception
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def layer_bits(folder: Path) -> float:
    tensors = [t for n, t in load_checkpoint(folder).tensors.items() if ".layers." in n and len(t.shape) == 2]
    return 8 * sum(t.nbytes for t in tensors) / sum(t.shape[0] * t.shape[1] for t in tensors)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", [None, "rtn"])
def test_bits(model: Path, tmp_path: Path, method: str | None) -> None:
    flags = () if method is None else ("--method", method)
    summary = run(model, "--budget-bits", 3.4, *flags, "--out", tmp_path / "out")
    assert summary["method"] == (method or "gptq")
    assert summary["budget_bits"] == 3.4
    assert 3.2 < layer_bits(tmp_path / "out") <= 3.4
    artefact = load_checkpoint(tmp_path / "out")
    assert str(artefact.tensors["lm_head.weight"].format) == "int8-g64"
    formats = {str(t.format) for n, t in artefact.tensors.items() if isinstance(t, GroupTensor)}
    assert len(formats) > 2, "not one format for all"
    assert artefact.compression is not None
    allocation = artefact.compression.allocation
    assert allocation is not None
    assert allocation["budget"] == {"limit": 3.4, "unit": "bits"}
    assert allocation["check"]["spearman"] > 0.5
    for name, record in artefact.compression.linears.items():
        if ".layers." in name:
            assert record.format in allocation["losses"][name]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_milliseconds(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"--budget-ms: 1e-09, expected .* ms with these formats"
    ) as caught:
        run(model, "--budget-ms", 1e-9, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    low = float(str(caught.value).split("expected ")[1].split(" to")[0])
    run(model, "--budget-ms", low * 1.2 + 0.002, "--out", tmp_path / "out")
    record = load_checkpoint(tmp_path / "out").compression
    assert record is not None
    assert record.allocation is not None
    assert record.allocation["spent"] <= low * 1.2 + 0.002


def test_a_ladder_is_served(model: Path, tmp_path: Path) -> None:
    printed = run(model, "--ladder", "quality,small=3", "--rotate", 1, "--out", tmp_path / "ladder")
    folders = [tmp_path / "ladder" / name for name in ("quality", "small")]
    assert [each["path"] for each in printed["rungs"]] == [str(each) for each in folders]
    assert [each["budget_bits"] for each in printed["rungs"]] == [4.5, 3]
    assert layer_bits(folders[1]) <= 3 < layer_bits(folders[0]) <= 4.5
    assert sorted(path.name for path in (tmp_path / "ladder").iterdir()) == ["quality", "small"]
    settings = Settings(model=str(folders[0]), levels=(str(folders[1]),), threads=1)
    levels = load_levels(settings)
    assert len(levels) == 2
    shut_down(levels)


def test_a_ladder_that_was_interrupted_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--ladder", "quality,fast=3")
    run(model, *flags, "--out", tmp_path / "whole")
    original = artefact_writer._write_files
    written: list[str] = []

    def stop(folder: Path, *arguments: Any) -> None:
        written.append(folder.name)
        if len(written) == 2:
            raise KeyboardInterrupt
        original(folder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(artefact_writer, "_write_files", stop)
        result = CliRunner().invoke(
            app, ["compress", str(model), *flags, *map(str, FEW), "--out", str(tmp_path / "cut")]
        )
        assert result.exit_code != 0
    left = [path.name for path in (tmp_path / "cut").iterdir()]
    assert sorted(left) == [".fast.compressing", "quality"], "whole rungs, and what there is to go on from"
    with monkeypatch.context() as patch:
        solved = calibrated.solve_model
        solving: list[str] = []

        def count(*arguments: Any) -> Any:
            solving.append("")
            return solved(*arguments)

        patch.setattr(calibrated, "solve_model", count)
        run(model, *flags, "--out", tmp_path / "cut")
    assert len(solving) == 1, "the first rung is not done again"
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_rotated(model: Path, tmp_path: Path) -> None:
    """Rounded to 8 bits the function is still that of the model, and the weights are others."""
    summary = run(model, "--rotate", 3, "--format", "int8", "--out", tmp_path / "out")
    assert summary["rotate"] == 3
    assert summary["method"] == "rtn"
    artefact, source = load_checkpoint(tmp_path / "out"), load_checkpoint(model)
    tokens = (5, 17, 40, 200, 3, 99)
    difference = ReferenceLlama(artefact).logits(tokens) - ReferenceLlama(source).logits(tokens)
    assert np.abs(difference).max() < 0.3
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.abs(artefact.tensors[name].dequantize() - source.tensors[name].dequantize()).max() > 0.1


BAD_FLAGS = [
    (
        ("--budget-bits", 3, "--budget-ms", 3),
        "--budget-ms: is given with --budget-bits, expected one of them",
    ),
    (("--budget-bits", 3, "--ladder", "fast"), "--ladder: is given with --budget-bits"),
    (("--budget-bits", 3, "--format", "int4"), "--format: is given with a budget"),
    (("--ladder", "fast", "--group-size", 64), "--group-size: is given with a budget"),
    (
        ("--ladder", "quick"),
        "--ladder: 'quick', expected different names, each quality, balanced, fast or NAME=BITS",
    ),
    (("--ladder", "a=x"), "--ladder: 'a=x', expected"),
    (("--ladder", "a=-1"), "--ladder: 'a=-1', expected"),
    (("--ladder", "../a=3"), "--ladder: '../a=3', expected"),
    (("--ladder", "a=3,a=4"), "--ladder: 'a=4', expected"),
    (("--rotate", -2), "--rotate: -2, expected a seed of 0 or more"),
    (("--budget-bits", 1), "--budget-bits: 1, expected 1."),
    (("--ladder", "a=4,b=1"), "--budget-bits: 1, expected 1."),
]


@pytest.mark.parametrize(("flags", "expected"), BAD_FLAGS, ids=lambda each: str(each)[:40])
def test_flags_that_are_wrong(model: Path, tmp_path: Path, flags: tuple[object, ...], expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run(model, *flags, "--out", tmp_path / "out")
    assert expected in str(caught.value)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_weights_that_are_not_finite(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    arrays = load_file(broken / "model.safetensors")
    arrays["model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    save_file(arrays, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"
    ):
        run(broken, "--budget-bits", 3, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_out_of_disk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artefact_writer, "save_file", fail)
        with pytest.raises(ModelError, match="out: cannot be written: No space left on device"):
            run(model, "--budget-bits", 3, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.compressing"], "to go on from"
    run(model, "--budget-bits", 3, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
