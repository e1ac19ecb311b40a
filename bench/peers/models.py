"""The model in each peer's own format, converted once for each content of the checkpoint."""

import os
import shutil
import subprocess
from pathlib import Path

from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.names import model_path

from bench.peers.environments import FOLDER, log_file, python
from bench.peers.huggingface import write_huggingface
from bench.peers.variants import Variant

_ROOT = Path(__file__).parents[2]


def _folder(checkpoint: Checkpoint) -> Path:
    return FOLDER / "models" / checkpoint.content_hash


def _source(variant: Variant, checkpoint: Checkpoint) -> Path:
    if variant.source == "huggingface":
        return _folder(checkpoint) / "huggingface"
    path = model_path(checkpoint.name)
    if path is None or path.suffix != ".gguf":
        raise ValueError(f"{checkpoint.name}: {variant.peer} takes a fetched model that is a GGUF file")
    return path


def peer_model(variant: Variant, checkpoint: Checkpoint) -> Path:
    """Where a variant's model is, or will be."""
    return _folder(checkpoint) / variant.converted if variant.converted else _source(variant, checkpoint)


def convert(variant: Variant, checkpoint: Checkpoint) -> None:
    """Make a variant's model unless it is there; CalledProcessError where the peer's converter fails."""
    target, source = peer_model(variant, checkpoint), _source(variant, checkpoint)
    temporary = target.with_name(f"new-{target.name}")
    if variant.source == "huggingface" and not source.exists():
        written = source.with_name(f"new-{source.name}")
        shutil.rmtree(written, ignore_errors=True)
        write_huggingface(checkpoint, written)
        written.replace(source)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    module = f"bench.peers.{variant.peer}"
    command = [python(variant.peer), "-m", module, "--format", variant.form, "--convert", source, temporary]
    with log_file(f"convert-{variant.name}").open("w") as log:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=log, cwd=_ROOT, env=environment)
    temporary.replace(target)
