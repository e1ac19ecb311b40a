"""A loaded checkpoint: one shape for every file format."""

from collections.abc import Mapping
from dataclasses import dataclass

from bidtrie.models.config import ModelConfig
from bidtrie.models.tensor import Tensor
from bidtrie.models.tokenizer import Tokenizer

__all__ = ["Checkpoint", "ModelConfig", "Tensor"]


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
