"""A checkpoint described for people and programs."""

import re
from typing import Any

import numpy as np

from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.tensor import Tensor

_LAYER = re.compile(r"^model\.layers\.\d+\.")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Architecture, sizes, tokenizer and the tensors by kind, ready for JSON; sizes in bytes."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    kinds: dict[tuple[str, str, tuple[int, ...]], list[Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        kinds.setdefault((_LAYER.sub("", name), tensor.format, tensor.shape), []).append(tensor)
    parameters = sum(int(np.prod(tensor.shape)) for tensor in checkpoint.tensors.values())
    size = sum(tensor.data.nbytes for tensor in checkpoint.tensors.values())
    return {
        "name": checkpoint.name,
        "content_hash": checkpoint.content_hash,
        "licence": checkpoint.licence,
        "architecture": config.architecture,
        "parameters": parameters,
        "size_bytes": size,
        "bits_per_weight": round(8 * size / parameters, 3),
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "context_length": config.context_length,
        "tied_embeddings": config.tie_word_embeddings,
        "qk_norm": config.qk_norm,
        "tokenizer": {
            "content_hash": tokenizer.content_hash,
            "tokens": tokenizer.vocab_size,
            "special_tokens": len(tokenizer.special_ids),
            "begin_token": tokenizer.bos_id,
            "end_tokens": list(tokenizer.eos_ids),
            "chat_template": tokenizer.chat_template is not None,
        },
        "tensors": [
            {
                "kind": kind,
                "count": len(tensors),
                "format": form,
                "shape": list(shape),
                "bits_per_weight": round(tensors[0].bits_per_weight, 3),
                "size_bytes": sum(tensor.data.nbytes for tensor in tensors),
            }
            for (kind, form, shape), tensors in kinds.items()
        ],
    }
