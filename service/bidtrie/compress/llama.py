"""The Llama family's forward pass in torch, cut where linears take their inputs.

transformers' own classes hide those places behind hooks and whole layers; here a block is six small steps, so that a
block's linears can be compressed one after the other while its inputs go through it once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.layout import EMBEDDING, FINAL_NORM, HEAD

#: A block's linears by the step that gives their inputs.
ATTENTION_IN = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
ATTENTION_OUT = ("self_attn.o_proj",)
MLP_IN = ("mlp.gate_proj", "mlp.up_proj")
MLP_OUT = ("mlp.down_proj",)


class Llama:
    """A checkpoint's function in float32. Hidden states are [sequences, tokens, hidden]; positions begin at 0."""

    def __init__(self, checkpoint: Checkpoint, weights: Mapping[str, Tensor] | None = None) -> None:
        """weights: by the checkpoint's names; None: what its tensors dequantize to."""
        self.config = checkpoint.config
        self.weights: dict[str, Tensor] = dict(weights) if weights is not None else torch_weights(checkpoint)
        self._inv_freq = torch.from_numpy(self.config.inv_freq.copy())

    def embed(self, tokens: Tensor) -> Tensor:
        """Hidden states of int64 [sequences, tokens] before the first block."""
        return functional.embedding(tokens, self.weights[EMBEDDING])

    def block(self, layer: int, hidden: Tensor) -> Tensor:
        """Hidden states after a block."""
        hidden = self.add_attention(layer, hidden, self.attend(layer, self.attention_input(layer, hidden)))
        return self.add_mlp(layer, hidden, self.gate(layer, self.mlp_input(layer, hidden)))

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [sequences, tokens, vocabulary] of hidden states after the last block."""
        return functional.linear(self.head_input(hidden), self.head)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of int64 [sequences, tokens]."""
        hidden = self.embed(tokens)
        for layer in range(self.config.num_layers):
            hidden = self.block(layer, hidden)
        return self.logits(hidden)

    @property
    def head(self) -> Tensor:
        """[vocabulary, hidden]."""
        return self.weights[EMBEDDING if self.config.tie_word_embeddings else HEAD]

    def head_input(self, hidden: Tensor) -> Tensor:
        """What the head takes."""
        return self._norm(hidden, FINAL_NORM)

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """What q_proj, k_proj and v_proj take."""
        return self._norm(hidden, f"model.layers.{layer}.input_layernorm.weight")

    def attend(self, layer: int, inputs: Tensor) -> Tensor:
        """What o_proj takes."""
        config, name = self.config, f"model.layers.{layer}.self_attn"
        query = self._heads(inputs, f"{name}.q", config.num_heads)
        key = self._heads(inputs, f"{name}.k", config.num_kv_heads)
        value = self._split(self._linear(inputs, f"{name}.v_proj"), config.num_kv_heads)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=config.num_heads != config.num_kv_heads
        )
        return mixed.transpose(1, 2).flatten(2)

    def add_attention(self, layer: int, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Hidden states between attention and MLP."""
        return hidden + self._linear(mixed, f"model.layers.{layer}.self_attn.o_proj")

    def mlp_input(self, layer: int, hidden: Tensor) -> Tensor:
        """What gate_proj and up_proj take."""
        return self._norm(hidden, f"model.layers.{layer}.post_attention_layernorm.weight")

    def gate(self, layer: int, inputs: Tensor) -> Tensor:
        """What down_proj takes."""
        name = f"model.layers.{layer}.mlp"
        gated = functional.silu(self._linear(inputs, f"{name}.gate_proj"))
        return gated * self._linear(inputs, f"{name}.up_proj")

    def add_mlp(self, layer: int, hidden: Tensor, gated: Tensor) -> Tensor:
        """Hidden states after the block."""
        return hidden + self._linear(gated, f"model.layers.{layer}.mlp.down_proj")

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(inputs, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _norm(self, hidden: Tensor, name: str) -> Tensor:
        weight = self.weights[name]
        return functional.rms_norm(hidden, weight.shape, weight, self.config.rms_norm_eps)

    def _split(self, states: Tensor, heads: int) -> Tensor:
        return states.view(*states.shape[:-1], heads, self.config.head_dim).transpose(1, 2)

    def _heads(self, inputs: Tensor, name: str, heads: int) -> Tensor:
        """Queries or keys, turned by their positions: [sequences, heads, tokens, head_dim]."""
        states = self._split(self._linear(inputs, f"{name}_proj"), heads)
        if self.config.qk_norm:
            states = self._norm(states, f"{name}_norm.weight")
        angles = torch.outer(torch.arange(states.shape[2], dtype=torch.float32), self._inv_freq).repeat(1, 2)
        first, second = states.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (states * angles.cos() + turned * angles.sin()) * self.config.attention_factor


def torch_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of a checkpoint in float32, by its name."""
    return {name: torch.from_numpy(each.dequantize().copy()) for name, each in checkpoint.tensors.items()}
