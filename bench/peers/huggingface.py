"""A checkpoint written as a Hugging Face directory, from which every peer's converter starts.

The weights are the dequantized ones: what a peer quantizes anew is the model that our engine runs, and no file has to
come from a model hub.
"""

import json
from pathlib import Path

import numpy as np
from bidtrie.models.checkpoint import Checkpoint
from safetensors.numpy import save_file


def rope_theta(checkpoint: Checkpoint) -> float:
    """The base of the rotary frequencies; ValueError where they do not follow from a base alone."""
    frequencies, half = checkpoint.config.inv_freq, checkpoint.config.head_dim // 2
    theta = round(float(frequencies[1]) ** -half, 0)
    if not np.allclose(frequencies, theta ** -(np.arange(half) / half), rtol=1e-4):
        raise ValueError(
            f"{checkpoint.name}: its rotary frequencies are scaled, which the peers are not told"
        )
    return theta


def write_huggingface(checkpoint: Checkpoint, folder: Path) -> None:
    """Write config, tokenizer and float32 weights of a Llama checkpoint into `folder`."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    if config.architecture != "LlamaForCausalLM":
        raise ValueError(
            f"{checkpoint.name}: is a {config.architecture}, the peers are compared on Llama models"
        )
    end = config.eos_token_ids[0] if config.eos_token_ids else None
    theta = rope_theta(checkpoint)
    settings = {
        "architectures": [config.architecture],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        # Old and new readers look for the base in different places.
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "max_position_embeddings": config.context_length,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "bos_token": None if config.bos_token_id is None else tokenizer.token_text(config.bos_token_id),
        "eos_token": None if end is None else tokenizer.token_text(end),
        "pad_token": None if end is None else tokenizer.token_text(end),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.definition, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens, indent=1), encoding="utf-8")
    weights = {name: np.ascontiguousarray(tensor.dequantize()) for name, tensor in checkpoint.tensors.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
