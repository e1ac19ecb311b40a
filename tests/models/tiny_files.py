"""Tiny checkpoints as files, written by other people's writers, and ways to damage them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from numpy.typing import NDArray
from reference.tiny_models import BOS, EOS, MERGES, VOCABULARY, tiny_tokenizer

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    module, _, end = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, inner = module.split(".", 3)
        return f"blk.{layer}.{GGUF_NAMES[inner]}.{end}"
    return f"{GGUF_NAMES[module]}.{end}"


def llama_cpp_permute(weights: NDArray[Any], n_head: int) -> NDArray[Any]:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py, which moves rows to interleaved rotary pairs."""
    return (
        weights.reshape(n_head, 2, weights.shape[0] // n_head // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def vocabulary() -> list[str]:
    """The tokens of the tiny tokenizer in order of their ids."""
    own = tiny_tokenizer().get_vocab()
    return sorted(own, key=own.__getitem__)


def add_tiny_tokenizer(writer: GGUFWriter, pre: str = "gpt-2") -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in (BOS, EOS) else 1 for i in range(len(tokens))])
    writer.add_token_merges(MERGES.split("|"))
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)


def write_gguf(
    path: Path,
    model: Any,
    formats: dict[str, GGMLQuantizationType] | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write a transformers model as GGUF.

    `formats` chooses types by the end of the Hugging Face name without `.weight`; the rest is F32. `metadata` adds or
    replaces keys below the architecture (floats as FLOAT32, ints as UINT32, strings).
    """
    config = model.config
    arch = "llama" if config.model_type == "mistral" else config.model_type
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer = GGUFWriter(path, arch)
    values: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        **(metadata or {}),
    }
    for key, value in values.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{arch}.{key}", value)
    add_tiny_tokenizer(writer)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values_ = weight.float().numpy()
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            values_ = llama_cpp_permute(values_, heads if "q_proj" in name else kv_heads)
        kind = next(
            (
                kind
                for end, kind in (formats or {}).items()
                if values_.ndim == 2 and name.removesuffix(".weight").endswith(end)
            ),
            GGMLQuantizationType.F32,
        )
        if kind == GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), values_)
        elif kind == GGMLQuantizationType.F16:
            writer.add_tensor(gguf_name(name), values_.astype(np.float16))
        else:
            writer.add_tensor(gguf_name(name), quantize(values_, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; `...` removes one."""
    values = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            values.pop(key, None)
        else:
            values[key] = value
    path.write_text(json.dumps(values))


__all__ = [
    "BOS",
    "EOS",
    "VOCABULARY",
    "add_tiny_tokenizer",
    "change_json",
    "gguf_name",
    "llama_cpp_permute",
    "vocabulary",
    "write_gguf",
]
