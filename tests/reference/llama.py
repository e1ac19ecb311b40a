"""The Llama family's forward pass in numpy float64, as plainly as it can be written."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
from bidtrie.models.checkpoint import Checkpoint, ModelConfig
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Rounding = Callable[[Float64], Float64]


def rms_norm(x: Float64, weight: Float64, eps: float) -> Float64:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def rotate(x: Float64, positions: NDArray[np.int64], config: ModelConfig) -> Float64:
    """Rotary embedding of `x` [tokens, heads, head_dim]: component i is paired with i + head_dim / 2."""
    angles = positions[:, None, None] * config.inv_freq.astype(np.float64)
    cos, sin = np.cos(angles) * config.attention_factor, np.sin(angles) * config.attention_factor
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class ReferenceLlama:
    """Logits of one token sequence, causal, without a KV cache.

    An engine's rounding is simulated by functions that are applied to the input of every linear, the head included
    (`activation`), and to what is stored of keys and values (`cache`).
    """

    def __init__(
        self, checkpoint: Checkpoint, activation: Rounding | None = None, cache: Rounding | None = None
    ) -> None:
        self.config = checkpoint.config
        self._weights = {name: t.dequantize().astype(np.float64) for name, t in checkpoint.tensors.items()}
        self._head = "lm_head" if "lm_head.weight" in self._weights else "model.embed_tokens"
        self._activation = activation
        self._cache = cache
        self._memo: dict[tuple[tuple[int, ...], tuple[int, ...]], Float64] = {}

    def rounding(self, activation: Rounding, cache: Rounding | None = None) -> "ReferenceLlama":
        """The same weights, which are not copied, with another rounding."""
        other = copy.copy(self)
        other._activation = activation
        other._cache = cache
        other._memo = {}
        return other

    def _linear(self, name: str, x: Float64) -> Float64:
        if self._activation is not None:
            x = self._activation(x)
        y = x @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _attention(self, layer: str, x: Float64, positions: NDArray[np.int64]) -> Float64:
        config, count = self.config, len(x)
        heads = []
        for name, number in (("q", config.num_heads), ("k", config.num_kv_heads), ("v", config.num_kv_heads)):
            heads.append(self._linear(f"{layer}.{name}_proj", x).reshape(count, number, config.head_dim))
        q, k, v = heads
        if config.qk_norm:
            q = rms_norm(q, self._weights[f"{layer}.q_norm.weight"], config.rms_norm_eps)
            k = rms_norm(k, self._weights[f"{layer}.k_norm.weight"], config.rms_norm_eps)
        q, k = rotate(q, positions, config), rotate(k, positions, config)
        if self._cache is not None:
            k, v = self._cache(k), self._cache(v)
        group = config.num_heads // config.num_kv_heads
        k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(config.head_dim)
        scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(count, -1)
        return self._linear(f"{layer}.o_proj", mixed)

    def _mlp(self, layer: str, x: Float64) -> Float64:
        gate = self._linear(f"{layer}.gate_proj", x)
        return self._linear(
            f"{layer}.down_proj", gate / (1 + np.exp(-gate)) * self._linear(f"{layer}.up_proj", x)
        )

    def _hidden(self, tokens: Sequence[int], positions: Sequence[int]) -> Float64:
        """What enters the head [tokens, hidden]."""
        at = np.asarray(positions, np.int64)
        eps = self.config.rms_norm_eps
        x = self._weights["model.embed_tokens.weight"][np.asarray(tokens, np.int64)]
        for i in range(self.config.num_layers):
            layer = f"model.layers.{i}"
            norm = self._weights[f"{layer}.input_layernorm.weight"]
            x = x + self._attention(f"{layer}.self_attn", rms_norm(x, norm, eps), at)
            norm = self._weights[f"{layer}.post_attention_layernorm.weight"]
            x = x + self._mlp(f"{layer}.mlp", rms_norm(x, norm, eps))
        return rms_norm(x, self._weights["model.norm.weight"], eps)

    def logits(self, tokens: Sequence[int]) -> Float64:
        """Next-token logits [tokens, vocabulary]."""
        return self._linear(self._head, self._hidden(tokens, range(len(tokens))))

    def last_logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Float64:
        """Logits [vocabulary] of the last of these tokens at these positions, remembered."""
        key = (tuple(tokens), tuple(positions))
        if key not in self._memo:
            self._memo[key] = self._linear(self._head, self._hidden(tokens, positions)[-1:])[0]
        return self._memo[key]
