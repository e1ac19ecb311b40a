"""A checkpoint out of a GGUF file: llama.cpp's names and row order turned into Hugging Face's."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.config import LIMITS, ModelConfig
from bidtrie.models.fields import Fields, printable
from bidtrie.models.gguf_file import GGUFFile, TensorEntry, read_gguf
from bidtrie.models.gguf_tokenizer import bos_id, eos_ids, tokenizer_from_gguf
from bidtrie.models.huggingface_config import write_config
from bidtrie.models.layout import EMBEDDING, FINAL_NORM, HEAD, check_shapes, check_values, required_biases
from bidtrie.models.rope import inverse_frequencies
from bidtrie.models.tensor import Tensor

#: `general.architecture`, and the Hugging Face class that it is here.
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

_TOP = {"token_embd.weight": EMBEDDING, "output_norm.weight": FINAL_NORM, "output.weight": HEAD}
_ROPE_FACTORS = "rope_freqs.weight"
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_TENSOR = re.compile(r"blk\.(0|[1-9]\d{0,4})\.([a-z_]+)\.(weight|bias)")


def hugging_face_name(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor; None if there is none."""
    if name in _TOP:
        return _TOP[name]
    if (match := _LAYER_TENSOR.fullmatch(name)) and match[2] in _IN_LAYER:
        return f"model.layers.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"
    return None


def read_gguf_checkpoint(path: Path, name: str) -> Checkpoint:
    """Read a GGUF file of the Llama family. Raises ModelError naming the file and what is wrong in it."""
    file = read_gguf(path)
    fields = Fields(str(path), file.metadata)
    config, rope = _config(file, fields)
    if problem := config.problem():
        raise ModelError(f"{path}: {problem}")
    tensors = _tensors(file, config)
    check_values(str(path), tensors)
    licence = fields.text("general.license", "") or None
    return Checkpoint(
        name=name,
        config=config,
        content_hash=hashlib.blake2b(file.mapped.data, digest_size=8).hexdigest(),
        tensors=tensors,
        tokenizer=tokenizer_from_gguf(fields, config.vocab_size),
        licence=licence,
        huggingface_config=None if rope is None else write_config(config, rope, tensors, licence),
    )


def _config(file: GGUFFile, fields: Fields) -> tuple[ModelConfig, dict[str, Any] | None]:
    """The configuration, and its rotary settings as a Hugging Face one has them, unless it cannot."""
    name = fields.text("general.architecture")
    if name not in ARCHITECTURES:
        raise ModelError(
            f"{file.path}: architecture {printable(name)} is not supported, expected one of {', '.join(ARCHITECTURES)}"
        )
    if fields.integer(f"{name}.expert_count", 0):
        raise ModelError(f"{file.path}: {name}.expert_count is set: mixtures of experts are not supported")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path}: tensor token_embd.weight is missing")
    hidden, heads = fields.integer(f"{name}.embedding_length"), fields.integer(f"{name}.attention.head_count")
    head_dim = fields.integer(f"{name}.attention.key_length", hidden // max(heads, 1))
    for key in (f"{name}.attention.value_length", f"{name}.rope.dimension_count"):
        if fields.integer(key, head_dim) != head_dim:
            raise ModelError(
                f"{file.path}: {key} is {fields.integer(key)}, expected the head size {head_dim}"
            )
    if not 1 <= head_dim <= LIMITS["head_dim"]:
        raise ModelError(f"{file.path}: the head size is {head_dim}, expected 1 to {LIMITS['head_dim']}")
    context = fields.integer(f"{name}.context_length")
    inv_freq, attention_factor, rope = _rope(file, fields, name, head_dim, context)
    if window := fields.integer(f"{name}.attention.sliding_window", 0):
        context = min(context, window)
    rows = embedding.shape[0]
    config = ModelConfig(
        architecture=ARCHITECTURES[name],
        vocab_size=rows,
        hidden_size=hidden,
        intermediate_size=fields.integer(f"{name}.feed_forward_length"),
        num_layers=fields.integer(f"{name}.block_count"),
        num_heads=heads,
        num_kv_heads=fields.integer(f"{name}.attention.head_count_kv", heads),
        head_dim=head_dim,
        rms_norm_eps=fields.number(f"{name}.attention.layer_norm_rms_epsilon"),
        inv_freq=inv_freq,
        attention_factor=attention_factor,
        context_length=context,
        tie_word_embeddings="output.weight" not in file.tensors,
        qk_norm=name == "qwen3",
        bos_token_id=bos_id(fields, rows),
        eos_token_ids=eos_ids(fields, rows),
    )
    return config, rope


def _rope(
    file: GGUFFile, fields: Fields, name: str, head_dim: int, context: int
) -> tuple[NDArray[np.float32], float, dict[str, Any] | None]:
    """Rotary frequencies; llama.cpp's metadata keys are turned into those of a Hugging Face configuration.

    That configuration is the third value; None where the file holds factors of its own beside it.
    """
    prefix = f"{name}.rope.scaling"
    for key, neutral in [(f"{prefix}.attn_factor", 1.0), (f"{prefix}.yarn_log_multiplier", 0.0)]:
        if fields.number(key, neutral) != neutral:
            raise ModelError(
                f"{file.path}: {key} is {fields.number(key)}, expected {neutral} (others are not supported)"
            )
    kind = fields.text(f"{prefix}.type", "none")
    keys = {
        "factor": f"{prefix}.factor",
        "original_max_position_embeddings": f"{prefix}.original_context_length",
        "beta_fast": f"{prefix}.yarn_beta_fast",
        "beta_slow": f"{prefix}.yarn_beta_slow",
        "rope_theta": f"{name}.rope.freq_base",
    }
    rope: dict[str, Any] = {key: file.metadata[own] for key, own in keys.items() if own in file.metadata}
    if kind == "none" and f"{name}.rope.scale_linear" in fields:
        kind, rope["factor"] = "linear", fields.number(f"{name}.rope.scale_linear")
    rope["rope_type"] = "default" if kind == "none" else kind
    inv_freq, attention_factor = inverse_frequencies(Fields(f"{file.path}: rope", rope), head_dim, context)
    if rope["rope_type"] == "yarn":
        # Spelled out, since a sliding window may change the context length that stands in for it.
        rope.setdefault("original_max_position_embeddings", context)
    if (entry := file.tensors.get(_ROPE_FACTORS)) is not None:
        if entry.type != GGMLQuantizationType.F32 or entry.shape != (head_dim // 2,):
            raise ModelError(
                f"{file.path}: tensor {_ROPE_FACTORS} is {entry.type.name} {list(entry.shape)}, "
                f"expected F32 [{head_dim // 2}]"
            )
        factors = entry.data.view("<f4")
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise ModelError(f"{file.path}: tensor {_ROPE_FACTORS} holds values that are not positive")
        return inv_freq / factors, attention_factor, None
    return inv_freq, attention_factor, rope


def _tensors(file: GGUFFile, config: ModelConfig) -> dict[str, Tensor]:
    """All tensors under their Hugging Face names, shapes checked before anything is converted."""
    entries: dict[str, TensorEntry] = {}
    for name, entry in file.tensors.items():
        if name == _ROPE_FACTORS:
            continue
        own = hugging_face_name(name)
        if own is None:
            raise ModelError(
                f"{file.path}: tensor {printable(name)} is not part of a {config.architecture} model"
            )
        entries[own] = entry
    qwen2 = config.architecture == "Qwen2ForCausalLM"
    biases = required_biases(config, qkv=qwen2, output=False, mlp=False)
    check_shapes(str(file.path), config, {name: entry.shape for name, entry in entries.items()}, biases)
    # llama.cpp stores the q and k rows of this architecture alone in the order of interleaved rotary pairs.
    heads = (
        {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
        if config.architecture.startswith("Llama")
        else {}
    )
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        tensor = _tensor(file.path, name, entry)
        if count := heads.get(name.split(".")[-2]):
            tensor = Tensor(
                tensor.format, tensor.shape, tensor.data[half_rotation_order(count, config.head_dim)]
            )
        tensors[name] = tensor
    return tensors


def half_rotation_order(heads: int, head_dim: int) -> NDArray[np.int64]:
    """Which stored row belongs at each row of [heads * head_dim, ...].

    Stored rotary pairs (2j, 2j + 1) become (j, j + head_dim / 2): the inverse of `LlamaModel.permute` in llama.cpp's
    `convert_hf_to_gguf.py`. Rows are moved whole, so blocks keep their bytes.
    """
    rows = np.arange(heads * head_dim, dtype=np.int64)
    return rows.reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


def _tensor(path: Path, name: str, entry: TensorEntry) -> Tensor:
    """Blocks of Q4_1 and Q8_0 as they are; everything else as float32."""
    rows = entry.data.reshape(*entry.shape[:-1], -1)
    match entry.type:
        case GGMLQuantizationType.F32:
            return Tensor("float32", entry.shape, rows.view("<f4"))
        case GGMLQuantizationType.F16:
            return Tensor("float32", entry.shape, rows.view("<f2").astype(np.float32))
        case GGMLQuantizationType.Q4_1:
            return Tensor("q4_1", entry.shape, rows)
        case GGMLQuantizationType.Q8_0:
            return Tensor("q8_0", entry.shape, rows)
    try:
        with np.errstate(all="ignore"):
            values = dequantize(rows, entry.type)
    except (NotImplementedError, ValueError, KeyError):
        raise ModelError(f"{path}: tensor {name} has the unsupported type {entry.type.name}") from None
    return Tensor("float32", entry.shape, np.ascontiguousarray(values, np.float32).reshape(entry.shape))
