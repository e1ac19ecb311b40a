"""Loads a checkpoint from whatever holds it."""

from pathlib import Path

from bidtrie.errors import ModelError
from bidtrie.models.adapter import is_adapter, read_adapter
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.fields import printable
from bidtrie.models.gguf_checkpoint import read_gguf_checkpoint
from bidtrie.models.huggingface import read_huggingface_checkpoint
from bidtrie.models.known import KNOWN_MODELS, TUNED_MODELS
from bidtrie.models.names import model_path


def load_checkpoint(path_or_name: str | Path) -> Checkpoint:
    """Load a .gguf file, a Hugging Face directory, a LoRA adapter's, or a model in the cache folder by its name.

    A name in the cache folder goes before a file of that name. Weights are views of the mapped files where possible:
    the files must not be changed in place while in use. Raises ModelError naming what is wrong.
    """
    text = str(path_or_name)
    cached = model_path(text) if isinstance(path_or_name, str) else None
    path = cached or Path(text).expanduser()
    name = text if cached else path.absolute().stem if path.suffix == ".gguf" else path.absolute().name
    try:
        if path.is_dir() and is_adapter(path):
            return read_adapter(path, name, _load_base)
        if path.is_dir():
            return read_huggingface_checkpoint(path, name)
        if path.is_file():
            return read_gguf_checkpoint(path, name)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{printable(text)}: is not a path: {error}") from None
    hint = f"; `bidtrie model fetch {text}` gets it" if text in KNOWN_MODELS or text in TUNED_MODELS else ""
    raise ModelError(f"{printable(text)}: no such file, folder or fetched model{hint}")


def _load_base(path_or_name: str) -> Checkpoint:
    """What an adapter changes: a model, not another adapter."""
    path = Path(path_or_name).expanduser()
    if path.is_dir() and is_adapter(path):
        raise ModelError(f"{printable(path_or_name)}: is an adapter itself, expected a model")
    return load_checkpoint(path_or_name)
