"""A Hugging Face `config.json`: read as a ModelConfig, and written for one."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bidtrie.errors import ModelError
from bidtrie.models.config import LIMITS, ModelConfig
from bidtrie.models.fields import Fields, printable
from bidtrie.models.layout import required_biases
from bidtrie.models.rope import DEFAULT_THETA, inverse_frequencies
from bidtrie.models.tokenizer import Tokenizer

CONFIG = "config.json"
#: The classes that are read, and transformers' `model_type` of each.
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

#: What transformers takes for a key that is absent (a null means that there is no window).
_MISTRAL_WINDOW = 4096
_QWEN3_HEAD_DIM = 128


def read_architecture(fields: Fields) -> str:
    """The class that config.json names. Raises ModelError if it is not one of `ARCHITECTURES`."""
    names = fields.texts("architectures")
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        shown = ", ".join(printable(name) for name in names[:3])
        raise ModelError(
            f"{fields.source}: architecture {shown or 'none'} is not supported, "
            f"expected one of {', '.join(ARCHITECTURES)}"
        )
    if (act := fields.text("hidden_act", "silu")) != "silu":
        raise ModelError(f"{fields.source}: hidden_act is {act!r}, expected 'silu'")
    return names[0]


def read_config(fields: Fields, architecture: str, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration in config.json; texts begin and end as the tokenizer has it. Raises ModelError."""
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    default_head_dim = _QWEN3_HEAD_DIM if architecture == "Qwen3ForCausalLM" else hidden // max(heads, 1)
    head_dim = fields.integer("head_dim", default_head_dim)
    if not 1 <= head_dim <= LIMITS["head_dim"]:
        raise ModelError(f"{fields.source}: head_dim is {head_dim}, expected 1 to {LIMITS['head_dim']}")
    context = fields.integer("max_position_embeddings")
    inv_freq, attention_factor = inverse_frequencies(_rope(fields), head_dim, context)
    window = _window(fields, architecture)
    config = ModelConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        inv_freq=inv_freq,
        attention_factor=attention_factor,
        context_length=context if window is None else min(context, window),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        qk_norm=architecture == "Qwen3ForCausalLM",
        bos_token_id=tokenizer.bos_id,
        eos_token_ids=tokenizer.eos_ids,
    )
    if problem := config.problem():
        raise ModelError(f"{fields.source}: {problem}")
    return config


def _rope(fields: Fields) -> Fields:
    """Rotary settings in one object: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5."""
    own = fields.section("rope_scaling" if "rope_scaling" in fields else "rope_parameters")
    if any(isinstance(value, dict) for value in own.values.values()):
        raise ModelError(f"{own.source}: differs between kinds of layers, which is not supported")
    outer = {
        key: fields.values[key]
        for key in ("rope_theta", "partial_rotary_factor")
        if key in fields and key not in own
    }
    # The one key that goes before the inner one in transformers.
    if "original_max_position_embeddings" in fields:
        outer["original_max_position_embeddings"] = fields.values["original_max_position_embeddings"]
    return Fields(own.source, {**own.values, **outer})


def _window(fields: Fields, architecture: str) -> int | None:
    """The sliding window: within it windowed and full attention are the same, so the context is capped to it."""
    if any(kind not in ("full_attention", "sliding_attention") for kind in fields.texts("layer_types", [])):
        raise ModelError(
            f"{fields.source}: layer_types holds an unknown kind, expected full_attention or sliding_attention"
        )
    if architecture == "MistralForCausalLM":
        if "sliding_window" not in fields.values:
            return _MISTRAL_WINDOW
        return fields.integer("sliding_window") if "sliding_window" in fields else None
    if architecture.startswith("Qwen") and fields.flag("use_sliding_window", False):
        return fields.integer("sliding_window", _MISTRAL_WINDOW)
    return None


def read_biases(fields: Fields, config: ModelConfig) -> frozenset[str]:
    """Names of the biases that config.json calls for."""
    if config.architecture == "Qwen2ForCausalLM":
        return required_biases(config, qkv=True, output=False, mlp=False)
    attention = fields.flag("attention_bias", False)
    return required_biases(config, qkv=attention, output=attention, mlp=fields.flag("mlp_bias", False))


def write_config(
    config: ModelConfig, rope: Mapping[str, Any], tensors: Collection[str], licence: str | None
) -> dict[str, Any] | None:
    """A config.json that `read_config` makes the same configuration of; None if none can say it.

    `rope`: rotary settings as `inverse_frequencies` takes them; `tensors`: names of all that the model has, biases
    among them. A sliding window is written as the context length that it leaves.
    """
    names = frozenset(tensors)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    inv_freq, factor = inverse_frequencies(Fields("rope", rope), config.head_dim, config.context_length)
    if not np.array_equal(inv_freq, config.inv_freq) or factor != config.attention_factor:
        return None
    return {
        "architectures": [config.architecture],
        "model_type": ARCHITECTURES[config.architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": rope.get("rope_theta", DEFAULT_THETA),
        "rope_scaling": None if scaling["rope_type"] == "default" else scaling,
        "max_position_embeddings": config.context_length,
        "sliding_window": None,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": required_biases(config, qkv=True, output=True, mlp=False) <= names,
        "mlp_bias": required_biases(config, qkv=False, output=False, mlp=True) <= names,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids),
        **({} if licence is None else {"license": licence}),
    }
