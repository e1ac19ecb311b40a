"""Settings that do not go with the engine, before anything is loaded."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bidtrie.errors import InvalidInput, ModelError
from bidtrie.serving import loaded_model
from bidtrie.serving.loaded_model import check_engine, load_model
from bidtrie.settings import Settings


def wrong(**settings: Any) -> set[str]:
    with pytest.raises(InvalidInput) as error:
        check_engine(Settings(**settings))
    return {violation.field for violation in error.value.violations}


def test_settings_that_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine(Settings(kv="float16", instruction_set="portable"))
    monkeypatch.setattr(loaded_model, "find_spec", lambda name: object())
    check_engine(Settings(engine="vllm", tensor_parallel=2, weights="float32"))
    assert wrong(engine="vllm", kv="float16", instruction_set="avx2") == {"kv", "instruction_set"}
    assert wrong(tensor_parallel=2) == {"tensor_parallel"}


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_vllm_that_is_not_installed() -> None:
    assert wrong(engine="vllm") == {"engine"}


def test_vllm_takes_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loaded_model, "find_spec", lambda name: object())
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(ModelError, match="not a folder, expected a Hugging Face directory"):
        load_model(Settings(engine="vllm", model=str(file)))
