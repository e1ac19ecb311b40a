"""What the ops of `bidtrie.engine.vllm.ops` compute on a GPU that has the kernels of `bidtrie.cuda`.

Activations are not rounded to 8 bits there. The kernels take float16 and bfloat16. Packed weights are kept with
`codes`, a step's lists of slots with `path_slots`, and so is the workspace of a kernel: calls of one process belong to
one stream.
"""

from typing import Any

import torch

from bidtrie.cuda.candidate_head import candidate_head as head_kernel
from bidtrie.cuda.linear import PackedLinear
from bidtrie.cuda.slot_lists import slot_lists
from bidtrie.cuda.tensors import FLOATS
from bidtrie.cuda.tree_attention import HEAD_SIZES, TreeAttention, TreeLayout
from bidtrie.engine.vllm.codes import group_tensor

#: A weight's workspace is made for so many nodes; longer steps take several calls.
_MAX_NODES = 128


def linear(x: torch.Tensor, codes: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The op `linear`."""
    packed = getattr(codes, "_bidtrie_packed", None)
    if packed is None:
        packed = PackedLinear(group_tensor(codes, *rest), codes.device, _MAX_NODES)
        codes._bidtrie_packed = packed  # type: ignore[attr-defined]
    x = x.contiguous()
    out = torch.empty(x.shape[0], packed.rows, dtype=x.dtype, device=x.device)
    for first in range(0, x.shape[0], _MAX_NODES):
        part = slice(first, first + _MAX_NODES)
        packed(x[part], out=out[part])
    return out


def candidate_head(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The op `candidate_head`."""
    logits, _, _ = head_kernel(weight, x.contiguous(), offsets, ids, len(ids))
    return logits.to(x.dtype)


def has_head(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `candidate_head` takes them."""
    return x.dtype in FLOATS and weight.dtype == x.dtype and x.shape[1] % 8 == 0 and weight.is_contiguous()


def has_attention(query: torch.Tensor) -> bool:
    """Whether `tree_attention` takes these queries."""
    return query.dtype in FLOATS and query.shape[2] in HEAD_SIZES


def tree_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    group: torch.Tensor,
    prefix_offsets: torch.Tensor,
    prefix_slots: torch.Tensor,
    path_offsets: torch.Tensor,
    path_slots: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The op `tree_attention`. The lists go to the host once a step: all layers see the same ones."""
    nodes, heads, size = query.shape
    if not nodes:
        return torch.empty_like(query)
    made = getattr(path_slots, "_bidtrie_step", None)
    if made is None:
        view = (group, prefix_offsets, prefix_slots, path_offsets, path_slots)
        lists = slot_lists(*(tensor.cpu().numpy() for tensor in view))
        layout = TreeLayout(
            torch.from_numpy(lists.page_table).to(query.device),
            torch.from_numpy(lists.first_node).to(query.device),
            torch.from_numpy(lists.prefix_length).to(query.device),
            torch.from_numpy(lists.length).to(query.device),
            torch.from_numpy(lists.mask.view("int32")).to(query.device),
        )
        runs, longest = lists.page_table.shape
        kernel = TreeAttention(heads, key_cache.shape[1], size, runs, nodes, longest, query.device)
        made = path_slots._bidtrie_step = kernel, layout  # type: ignore[attr-defined]
    kernel, layout = made
    return kernel(query.contiguous(), key_cache[:, None], value_cache[:, None], layout, scale)
