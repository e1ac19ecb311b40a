"""Attention over trees, in place of vLLM's own: every node sees its prefix and its ancestors, slot by slot.

vLLM's attention layers know sequences in blocks of slots. A tree's node sees slots that no list of blocks can name, so
each layer gets a cache of single slots [S, kv_heads, head_dim] for keys and one for values, and writes and reads them
as the step's view says. Committing, keeping and sharing nodes then move nothing: they are lists of slots.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.attention import Attention

from bidtrie.engine.vllm.ops import TreeView
from bidtrie.errors import ModelError


@dataclass(slots=True)
class TreeStep:
    """What the layers of a model must know of the step that they compute."""

    slots: torch.Tensor | None = None
    """int64 [T], where each node's keys and values go."""
    view: TreeView | None = None


class TreeAttention:
    """The forward method of one attention layer."""

    def __init__(
        self, layer: Any, slots: int, dtype: torch.dtype, device: torch.device, step: TreeStep
    ) -> None:
        self._heads, self._kv_heads, self._size = layer.num_heads, layer.num_kv_heads, layer.head_size
        self._scale = float(layer.impl.scale)
        self._step = step
        shape = (slots, self._kv_heads, self._size)
        # No slot is read before it has been written; what is never written takes no memory of the CPU's.
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object
    ) -> torch.Tensor:
        """query [T, heads * head_dim], key and value [T, kv_heads * head_dim] -> [T, heads * head_dim]."""
        slots, view = self._step.slots, self._step.view
        assert slots is not None
        assert view is not None
        nodes = query.shape[0]
        self.keys.index_copy_(0, slots, key.reshape(nodes, self._kv_heads, self._size))
        self.values.index_copy_(0, slots, value.reshape(nodes, self._kv_heads, self._size))
        out: torch.Tensor = torch.ops.bidtrie.tree_attention(
            query.reshape(nodes, self._heads, self._size),
            self.keys,
            self.values,
            *view.as_arguments(),
            self._scale,
        )
        return out.reshape(nodes, -1)


def use_tree_attention(model: nn.Module, slots: int, dtype: torch.dtype, device: torch.device) -> TreeStep:
    """Give every attention layer of the model a cache of so many slots, in place of one that it may have had."""
    step = TreeStep()
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    if not layers:
        raise ModelError("the model has no attention layers that the vllm engine knows")
    for layer in layers:
        # A sliding window needs no mask: ModelConfig.context_length is no longer than the window.
        layer.forward = TreeAttention(layer, slots, dtype, device, step)
    return step
