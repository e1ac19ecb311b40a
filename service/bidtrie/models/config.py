"""A model's configuration, the same for every file format it may come from."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bounds on what a file may claim, far above any model of the Llama family; they keep every size
#: that is computed from a configuration small enough to compare with the file's length.
LIMITS = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 18,
    "num_layers": 1 << 10,
    "num_heads": 1 << 10,
    "num_kv_heads": 1 << 10,
    "head_dim": 1 << 12,
    "context_length": 1 << 26,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape and constants of a decoder of the Llama family.

    inv_freq: float32 [head_dim / 2], radians a position of each rotary pair (i, i + head_dim / 2), scaling folded in.
    attention_factor: multiplies the rotary cosines and sines (YaRN), else 1.
    context_length: most tokens of a prefix plus path, capped to the sliding window where the model has one.
    qk_norm: queries and keys pass an RMS norm over each head before the rotation (Qwen3).
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    inv_freq: NDArray[np.float32]
    attention_factor: float
    context_length: int
    tie_word_embeddings: bool
    qk_norm: bool
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    def problem(self) -> str | None:
        """What is wrong with the values, or None."""
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not 1 <= value <= limit:
                return f"{name} is {value}, expected 1 to {limit}"
        if self.head_dim % 2:
            return f"head_dim is {self.head_dim}, expected an even number (rotary pairs)"
        if self.num_heads % self.num_kv_heads:
            return f"num_heads is {self.num_heads}, expected a multiple of num_kv_heads ({self.num_kv_heads})"
        if not (math.isfinite(self.rms_norm_eps) and 0 <= self.rms_norm_eps < 1):
            return f"rms_norm_eps is {self.rms_norm_eps}, expected a number from 0 to below 1"
        if not np.isfinite(self.inv_freq).all():
            return "the rotary frequencies are not finite"
        if not (math.isfinite(self.attention_factor) and self.attention_factor > 0):
            return f"the rotary attention factor is {self.attention_factor}, expected a positive number"
        for name, token in [("bos", self.bos_token_id), *(("eos", eos) for eos in self.eos_token_ids)]:
            if token is not None and not 0 <= token < self.vocab_size:
                return f"the {name} token id is {token}, expected 0 to {self.vocab_size - 1}"
        return None
