"""Tiny models with random weights: as Hugging Face directories, and as checkpoints without files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from bidtrie.compress.round_to_nearest import quantize as round_to_nearest
from bidtrie.models.checkpoint import Checkpoint, ModelConfig, Tensor
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.tokenizer import Tokenizer
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from tokenizers import decoders, models, pre_tokenizers

#: 256 bytes, two special tokens and some merges.
VOCABULARY = 300
BOS, EOS = 256, 257
MERGES = (
    "t h|th e|Ġ the|i n|e r|Ġ a|o n|r e|a t|e n|Ġ s|o r|Ġ c|i s|in g|Ġ in|e s|Ġ o|a n|Ġ f|e d|o u|"
    "a r|l e|Ġ w|Ġ p|Ġ b|i t|a l|Ġ m|i c|s t|Ġ d|r o|i on|Ġ re|Ġ t|Ġ h|l i|v e|u s|c h"
)


def tiny_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE of `VOCABULARY` tokens that encodes any text."""
    merges = [tuple(merge.split()) for merge in MERGES.split("|")]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<bos>", "<eos>", *("".join(m) for m in merges)]
    assert len(tokens) == len(set(tokens)) == VOCABULARY
    tokenizer = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


#: Hugging Face `model_type` and what differs from `_COMMON`, for each kind of tiny model.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-linear-rope": (
        "llama",
        {
            "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0},
            "attention_bias": True,
        },
    ),
    "llama-llama3-rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 500000.0,
            },
            "attention_bias": True,
            "num_hidden_layers": 3,
        },
    ),
    "mistral": ("mistral", {"head_dim": 32, "sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen3": ("qwen3", {"head_dim": 32, "num_key_value_heads": 2, "tie_word_embeddings": False}),
}

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}


def save_tiny_model(kind: str, folder: Path, seed: int = 0) -> Any:
    """Save a random model of `KINDS` with its tokenizer to `folder`; returns the transformers model.

    The weights are large enough for peaked attention and for logits that spread over several units:
    with the usual initialisation of 0.02 most mistakes would hide below any tolerance.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, changes = KINDS[kind]
    config = AutoConfig.for_model(model_type, **{**_COMMON, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if weight.dim() == 1 and "norm" in name else 0.15 * noise)
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def random_checkpoint(
    seed: int = 0,
    *,
    layers: int = 2,
    hidden: int = 64,
    intermediate: int = 96,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    vocabulary: int = VOCABULARY,
    tied: bool = False,
    biases: bool = False,
    qk_norm: bool = False,
    context_length: int = 256,
) -> Checkpoint:
    """A random checkpoint without files; the tokenizer fits `VOCABULARY` tokens."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for i in range(layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (hidden,)
        shapes[f"model.layers.{i}.post_attention_layernorm.weight"] = (hidden,)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            shapes[f"{attention}.{name}_proj.weight"] = (count * head_dim, hidden)
            if biases:
                shapes[f"{attention}.{name}_proj.bias"] = (count * head_dim,)
        shapes[f"{attention}.o_proj.weight"] = (hidden, heads * head_dim)
        if qk_norm:
            shapes |= {f"{attention}.{name}_norm.weight": (head_dim,) for name in "qk"}
        shapes |= {f"{mlp}.{name}_proj.weight": (intermediate, hidden) for name in ("gate", "up")}
        shapes[f"{mlp}.down_proj.weight"] = (hidden, intermediate)
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)

    tensors = {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape)
        values = 1 + 0.2 * noise if "norm" in name else 0.15 * noise
        tensors[name] = Tensor("float32", shape, values.astype(np.float32))
    return Checkpoint(
        name=f"random-{seed}",
        config=ModelConfig(
            architecture="llama",
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            rms_norm_eps=1e-5,
            inv_freq=(10000.0 ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32),
            attention_factor=1.0,
            context_length=context_length,
            tie_word_embeddings=tied,
            qk_norm=qk_norm,
            bos_token_id=BOS,
            eos_token_ids=(EOS,),
        ),
        content_hash=f"{seed:016x}",
        tensors=tensors,
        tokenizer=Tokenizer(tiny_tokenizer(), source="tiny model", eos_ids=[EOS], bos_id=BOS),
    )


def quantized(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as a Q4_1 GGUF holds it: linears in Q4_1, tables in Q8_0, the rest float32."""

    def convert(name: str, tensor: Tensor) -> Tensor:
        if len(tensor.shape) != 2:
            return tensor
        table = name in ("model.embed_tokens.weight", "lm_head.weight")
        kind = GGMLQuantizationType.Q8_0 if table else GGMLQuantizationType.Q4_1
        return Tensor("q8_0" if table else "q4_1", tensor.shape, quantize(tensor.data, kind))

    return replace(
        checkpoint,
        name=f"{checkpoint.name}-q4_1",
        content_hash=f"{int(checkpoint.content_hash, 16) + (1 << 32):016x}",
        tensors={name: convert(name, tensor) for name, tensor in checkpoint.tensors.items()},
    )


#: A format for each linear of a layer, and for the table and the head: all kinds of codes, groups of several sizes.
GROUP_FORMATS = {
    "q_proj": GroupFormat(4, 32),
    "k_proj": GroupFormat(8, 16),
    "v_proj": GroupFormat(4, 64, table=True),
    "o_proj": GroupFormat(4, 16, minimum=True),
    "gate_proj": GroupFormat(4, 32, pattern="2:4"),
    "up_proj": GroupFormat(4, 64, table=True, pattern="1:4"),
    "down_proj": GroupFormat(4, 96, minimum=True),
    "embed_tokens": GroupFormat(8, 64),
    "lm_head": GroupFormat(4, 16),
}


def in_groups(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as an artefact may hold it, every linear of a layer in a format of its own."""

    def convert(name: str, tensor: Tensor | GroupTensor) -> Tensor | GroupTensor:
        if len(tensor.shape) != 2:
            return tensor
        return round_to_nearest(tensor.dequantize(), GROUP_FORMATS[name.split(".")[-2]])

    return replace(
        checkpoint,
        name=f"{checkpoint.name}-groups",
        content_hash=f"{int(checkpoint.content_hash, 16) + (2 << 32):016x}",
        tensors={name: convert(name, tensor) for name, tensor in checkpoint.tensors.items()},
    )


CheckpointMaker = Callable[[], Checkpoint]

#: Small models that between them have every feature that an engine must compute.
CHECKPOINTS: dict[str, CheckpointMaker] = {
    "float32": lambda: random_checkpoint(1),
    "float32-odd": lambda: random_checkpoint(
        2,
        layers=3,
        hidden=96,
        intermediate=160,
        heads=6,
        kv_heads=2,
        head_dim=32,
        tied=True,
        biases=True,
        qk_norm=True,
    ),
    "groups": lambda: in_groups(random_checkpoint(5)),
    # Sizes that end in the middle of blocks and groups.
    "groups-odd": lambda: in_groups(
        random_checkpoint(
            6, hidden=80, intermediate=144, heads=6, kv_heads=2, head_dim=24, biases=True, qk_norm=True
        )
    ),
    "q4_1": lambda: quantized(random_checkpoint(3)),
    "q4_1-odd": lambda: quantized(
        random_checkpoint(
            14,
            layers=3,
            hidden=96,
            intermediate=160,
            heads=3,
            kv_heads=1,
            head_dim=32,
            tied=True,
            biases=True,
        )
    ),
}
