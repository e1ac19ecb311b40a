"""A Llama GGUF as a transformers model, read without any of bidtrie's own code."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def _unpermuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows in Hugging Face order: llama.cpp stores the two halves of a head's rotary pairs interleaved."""
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def gguf_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """The file's weights as float32, by Hugging Face name, dequantized by gguf."""
    reader = GGUFReader(path)
    heads = reader.fields["llama.attention.head_count"].contents()
    kv_heads = reader.fields["llama.attention.head_count_kv"].contents()
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        name = tensor.name.removesuffix(".weight")
        if name.startswith("blk."):
            _, layer, part = name.split(".")
            if part in ("attn_q", "attn_k"):
                values = _unpermuted(values, heads if part == "attn_q" else kv_heads)
            weights[f"model.layers.{layer}.{_BLOCK_NAMES[part]}.weight"] = values
        else:
            weights[f"{_NAMES[name]}.weight"] = values
    return weights


def gguf_model(path: Path) -> Any:
    """The file as a float32 LlamaForCausalLM."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {
        name.removeprefix("llama."): field.contents()
        for name, field in GGUFReader(path).fields.items()
        if name.startswith("llama.")
    }
    weights = {name: torch.from_numpy(np.array(values)) for name, values in gguf_weights(path).items()}
    tied = "lm_head.weight" not in weights
    config = LlamaConfig(
        vocab_size=weights["model.embed_tokens.weight"].shape[0],
        hidden_size=fields["embedding_length"],
        intermediate_size=fields["feed_forward_length"],
        num_hidden_layers=fields["block_count"],
        num_attention_heads=fields["attention.head_count"],
        num_key_value_heads=fields["attention.head_count_kv"],
        rms_norm_eps=fields["attention.layer_norm_rms_epsilon"],
        rope_theta=fields["rope.freq_base"],
        max_position_embeddings=fields["context_length"],
        tie_word_embeddings=tied,
    )
    if tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(weights, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()
