"""`bidtrie model fetch` of a tuned model: base, adapter and rounding, without torch."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from bidtrie.cli.model import app
from bidtrie.compress import tuned_model
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.tuned_model import FORMAT, fetch_tuned
from bidtrie.errors import ModelError
from bidtrie.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNE_RECORD
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.known import TUNED_MODELS, TunedModel
from bidtrie.models.load import load_checkpoint
from reference.tiny_models import save_tiny_model
from safetensors.numpy import save_file
from typer.testing import CliRunner

LINEAR = "model.layers.1.mlp.up_proj"


def write_adapter(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An adapter of one linear, scale 2."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 64), (96, 4)))
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"base_model.model.{LINEAR}"
    save_file({f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}, folder / ADAPTER_WEIGHTS)
    config = {"peft_type": "LORA", "base_model_name_or_path": "tiny-base", "r": 4, "lora_alpha": 8}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    serving = {"bidtrie_serving": {"prior_weight": 0.25, "retriever_weight": 2.0}}
    (folder / TUNE_RECORD).write_text(json.dumps(serving))
    return a, b


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with a base in it, and a tuned model "tiny-ads" whose adapter lies in the folder returned."""
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    save_tiny_model("llama-tied", tmp_path / "home" / "models" / "tiny-base")
    monkeypatch.setitem(TUNED_MODELS, "tiny-ads", TunedModel("tiny-ads", "tiny-base", "tiny", "Apache-2.0"))
    monkeypatch.setattr(tuned_model, "fetch", lambda name, progress, wheel=None: None)
    monkeypatch.setattr(tuned_model, "files", lambda package: tmp_path / "package")
    return tmp_path / "package" / "adapters" / "tiny"


def silent(stage: str, done: int, total: int) -> None:
    pass


def test_merged_and_rounded(adapter: Path) -> None:
    a, b = write_adapter(adapter, 0)
    stages: list[str] = []
    path = fetch_tuned("tiny-ads", lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["merging the adapter", "compressing", "writing"]
    base, made = load_checkpoint("tiny-base"), load_checkpoint("tiny-ads")
    whole = base.tensors[f"{LINEAR}.weight"].dequantize() + 2 * (b @ a)
    expected = quantize(whole.astype(np.float32), FORMAT, name="w").dequantize()
    np.testing.assert_allclose(made.tensors[f"{LINEAR}.weight"].dequantize(), expected, atol=1e-6)
    other = "model.layers.0.mlp.up_proj.weight"
    untouched = quantize(base.tensors[other].dequantize(), FORMAT, name="w").dequantize()
    np.testing.assert_array_equal(made.tensors[other].dequantize(), untouched)
    assert made.huggingface_config is not None
    assert made.huggingface_config["bidtrie_serving"] == {"prior_weight": 0.25, "retriever_weight": 2.0}
    # Again: nothing is made anew.
    before = (path / "config.json").stat().st_mtime_ns
    assert fetch_tuned("tiny-ads", silent) == path
    assert (path / "config.json").stat().st_mtime_ns == before


def test_another_adapter_replaces_the_model(adapter: Path) -> None:
    write_adapter(adapter, 0)
    fetch_tuned("tiny-ads", silent)
    first = load_checkpoint("tiny-ads").content_hash
    write_adapter(adapter, 1)
    fetch_tuned("tiny-ads", silent)
    assert load_checkpoint("tiny-ads").content_hash != first


def test_another_format_replaces_the_model(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(adapter, 0)
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(tuned_model, "FORMAT", GroupFormat(bits=4, group_size=16, minimum=True))
        earlier_version.setattr(tuned_model, "FORMAT_NAME", "int4-min")
        fetch_tuned("tiny-ads", silent)
    assert str(load_checkpoint("tiny-ads").tensors[f"{LINEAR}.weight"].format) == "int4-min-g16"
    fetch_tuned("tiny-ads", silent)
    assert str(load_checkpoint("tiny-ads").tensors[f"{LINEAR}.weight"].format) == FORMAT.name


def test_a_damaged_adapter_leaves_nothing(adapter: Path, tmp_path: Path) -> None:
    write_adapter(adapter, 0)
    (adapter / ADAPTER_WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        fetch_tuned("tiny-ads", silent)
    left = {path.name for path in (tmp_path / "home" / "models").iterdir()}
    assert left == {"tiny-base", ".tiny-ads.lock"}
    with pytest.raises(ModelError, match="no tuned model 'other' is known"):
        fetch_tuned("other", silent)


def test_the_command(adapter: Path) -> None:
    write_adapter(adapter, 0)
    done = CliRunner().invoke(app, ["fetch", "tiny-ads", "--json"], catch_exceptions=False)
    answer = json.loads(done.stdout)
    assert answer["name"] == "tiny-ads"
    assert Path(answer["path"]).is_dir()
    assert "Apache-2.0" in CliRunner().invoke(app, ["fetch", "tiny-ads"]).stdout


def test_every_tuned_model_has_its_adapter() -> None:
    for tuned in TUNED_MODELS.values():
        folder = files("bidtrie.models") / "adapters" / tuned.adapter
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNE_RECORD):
            assert (folder / name).is_file()


def test_no_torch_is_imported() -> None:
    code = "import sys, bidtrie.compress.tuned_model; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
