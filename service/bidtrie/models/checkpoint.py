"""A loaded checkpoint: one shape for every file format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.config import ModelConfig
from bidtrie.models.group_tensor import GroupTensor
from bidtrie.models.tensor import Tensor
from bidtrie.models.tokenizer import Tokenizer

__all__ = ["AnyTensor", "Checkpoint", "GroupTensor", "ModelConfig", "Tensor"]

#: Both kinds have `shape`, `dequantize()`, `nbytes`, `bits_per_weight` and `is_finite()`; `str(tensor.format)` is the
#: name of the format.
AnyTensor = Tensor | GroupTensor


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration, weights and tokenizer.

    name: what it was loaded as: a fetched model's name, or the file's or folder's.
    content_hash: 16 hexadecimal digits over all bytes that the model was read from.
    tensors: by Hugging Face name, for example `model.layers.0.self_attn.q_proj.weight`; biases that the model does not
        have are absent, and so is `lm_head.weight` when it is tied to the embedding.
    licence: as the file states it (an SPDX identifier in most), if it does.
    huggingface_config: what the config.json of a directory of the same model holds, but for quantization; None if no
        such file can say it.
    compression: how the model was compressed, if it is an artefact of `bidtrie compress`.
    """

    name: str
    config: ModelConfig
    content_hash: str
    tensors: Mapping[str, AnyTensor]
    tokenizer: Tokenizer
    licence: str | None = None
    huggingface_config: Mapping[str, Any] | None = None
    compression: CompressionRecord | None = None
