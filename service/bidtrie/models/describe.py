"""A checkpoint described for people and programs."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bidtrie.models.checkpoint import AnyTensor, Checkpoint
from bidtrie.models.layout import is_head, linear_shapes

_LAYER = re.compile(r"^model\.layers\.\d+\.")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Architecture, sizes, tokenizer and the tensors by kind, ready for JSON; sizes in bytes.

    Of an artefact of `bidtrie compress` also how it was compressed, linear by linear; else `compression` is None.
    """
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    kinds: dict[tuple[str, str, tuple[int, ...]], list[AnyTensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        kinds.setdefault((_LAYER.sub("", name), str(tensor.format), tensor.shape), []).append(tensor)
    everything = list(checkpoint.tensors.values())
    return {
        "name": checkpoint.name,
        "content_hash": checkpoint.content_hash,
        "licence": checkpoint.licence,
        "architecture": config.architecture,
        "parameters": sum(int(np.prod(tensor.shape)) for tensor in everything),
        "size_bytes": sum(tensor.nbytes for tensor in everything),
        "bits_per_weight": _bits_per_weight(everything),
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
                "size_bytes": sum(tensor.nbytes for tensor in tensors),
            }
            for (kind, form, shape), tensors in kinds.items()
        ],
        "compression": _describe_compression(checkpoint),
    }


def _describe_compression(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Method, reference and every linear; bits a weight of the layers' linears, and of embedding and head apart."""
    record = checkpoint.compression
    if record is None:
        return None
    linears = {name: checkpoint.tensors[f"{name}.weight"] for name in linear_shapes(checkpoint.config)}
    return {
        "method": record.method,
        "options": dict(record.options),
        "reference": {"name": record.reference_name, "content_hash": record.reference_hash},
        "bidtrie_version": record.bidtrie_version,
        "layers_bits_per_weight": _bits_per_weight([t for name, t in linears.items() if not is_head(name)]),
        "head_bits_per_weight": _bits_per_weight([t for name, t in linears.items() if is_head(name)]),
        "linears": [
            {
                "name": name,
                "format": str(tensor.format),
                "shape": list(tensor.shape),
                "bits_per_weight": round(tensor.bits_per_weight, 3),
                "size_bytes": tensor.nbytes,
                "relative_error": record.linears[name].relative_error if name in record.linears else 0.0,
                "proxy_loss": record.linears[name].proxy_loss if name in record.linears else None,
            }
            for name, tensor in linears.items()
        ],
    }


def _bits_per_weight(tensors: Sequence[AnyTensor]) -> float:
    """All stored bits over the count of weights."""
    weights = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    return round(8 * sum(tensor.nbytes for tensor in tensors) / weights, 3)
