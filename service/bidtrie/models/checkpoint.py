"""A loaded checkpoint: one shape for every file format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bidtrie.errors import ModelError
from bidtrie.models.config import ModelConfig
from bidtrie.models.fields import printable
from bidtrie.models.known import KNOWN_MODELS
from bidtrie.models.names import model_path
from bidtrie.models.tensor import Tensor
from bidtrie.models.tokenizer import Tokenizer

__all__ = ["Checkpoint", "ModelConfig", "Tensor", "load_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration, weights and tokenizer.

    name: what it was loaded as: a fetched model's name, or the file's or folder's.
    content_hash: 16 hexadecimal digits over all bytes that the model was read from.
    tensors: by Hugging Face name, for example `model.layers.0.self_attn.q_proj.weight`; biases that the model does not
        have are absent, and so is `lm_head.weight` when it is tied to the embedding.
    licence: as the file states it (an SPDX identifier in most), if it does.
    """

    name: str
    config: ModelConfig
    content_hash: str
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    licence: str | None = None


def load_checkpoint(path_or_name: str | Path) -> Checkpoint:
    """Load a .gguf file, a Hugging Face directory, or a model in the cache folder by its name.

    A name in the cache folder goes before a file of that name. Weights are views of the mapped files where possible:
    the files must not be changed in place while in use. Raises ModelError naming what is wrong.
    """
    # The readers return a Checkpoint, so they import this module.
    from bidtrie.models.gguf_checkpoint import read_gguf_checkpoint
    from bidtrie.models.huggingface import read_huggingface_checkpoint

    text = str(path_or_name)
    cached = model_path(text) if isinstance(path_or_name, str) else None
    path = cached or Path(text).expanduser()
    name = text if cached else path.absolute().stem if path.suffix == ".gguf" else path.absolute().name
    try:
        if path.is_dir():
            return read_huggingface_checkpoint(path, name)
        if path.is_file():
            return read_gguf_checkpoint(path, name)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{printable(text)}: is not a path: {error}") from None
    hint = f"; `bidtrie model fetch {text}` gets it" if text in KNOWN_MODELS else ""
    raise ModelError(f"{printable(text)}: no such file, folder or fetched model{hint}")
