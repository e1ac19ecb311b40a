"""Attention of tree nodes over a paged KV cache."""

from dataclasses import dataclass

import torch

from bidtrie.cuda.library import check, library
from bidtrie.cuda.tensors import FLOATS, expect, expect_aligned, multiprocessors, stream
from bidtrie.errors import EngineError

#: Heads of these sizes have a kernel.
HEAD_SIZES = (64, 128)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """Which nodes belong to which sequence, and what they see; int32 tensors on the GPU, read by the kernel.

    page_table: [sequences, pages]: where each sequence's slots lie.
    first_node: [sequences + 1]: nodes of sequence s are first_node[s] … first_node[s + 1].
    prefix_length: [sequences]: positions that all nodes of a sequence see.
    length: [sequences]: all positions of a sequence, those behind the prefix included.
    mask: [nodes, words]: bit i % 32 of word i / 32: the node sees position prefix_length + i (its own included).
    """

    page_table: torch.Tensor
    first_node: torch.Tensor
    prefix_length: torch.Tensor
    length: torch.Tensor
    mask: torch.Tensor


class TreeAttention:
    """The kernel with a workspace for up to `max_nodes` nodes of `sequences` sequences: fit for a CUDA graph."""

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        head_size: int,
        sequences: int,
        max_nodes: int,
        max_length: int,
        device: torch.device,
        splits: int | None = None,
    ) -> None:
        """`splits`: into how many parts positions are cut; None: enough to fill the GPU."""
        if head_size not in HEAD_SIZES:
            raise EngineError(f"head_size is {head_size}, expected 64 or 128")
        if kv_heads < 1 or heads % kv_heads:
            raise EngineError(f"heads is {heads}, expected a multiple of kv_heads = {kv_heads}")
        self.heads, self.kv_heads, self.head_size = heads, kv_heads, head_size
        self.sequences, self.max_nodes, self.device = sequences, max_nodes, device
        self.splits = splits or library().bidtrie_attention_splits(
            max_nodes, sequences, heads, kv_heads, max_length, multiprocessors(device)
        )
        size = library().bidtrie_attention_workspace_bytes(
            max_nodes, sequences, heads, kv_heads, head_size, self.splits
        )
        self._workspace = torch.zeros(size, dtype=torch.uint8, device=device) if size else None

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: TreeLayout,
        scale: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """queries [nodes, heads, head_size] over keys and values [pages, page_size, kv_heads, head_size], 16-bit.

        Strides of the caches are free but for the last. Returns [nodes, heads, head_size]. Raises EngineError naming an
        argument that does not fit.
        """
        device, nodes = self.device, queries.shape[0]
        expect("queries", queries, (None, self.heads, self.head_size), tuple(FLOATS), device)
        if nodes > self.max_nodes:
            raise EngineError(f"queries has {nodes} rows, expected at most max_nodes = {self.max_nodes}")
        if queries.stride(1) != self.head_size:
            raise EngineError("queries: heads of a node must lie side by side")
        expect_aligned("queries", queries, queries.stride(0))
        expect("keys", keys, (None, None, self.kv_heads, self.head_size), (queries.dtype,), device)
        expect("values", values, tuple(keys.shape), (queries.dtype,), device)
        if keys.stride() != values.stride():
            raise EngineError("keys and values have different strides")
        for name, cache in (("keys", keys), ("values", values)):
            for stride_ in cache.stride()[:3]:
                expect_aligned(name, cache, stride_)
        integers = (torch.int32,)
        expect("page_table", layout.page_table, (self.sequences, None), integers, device)
        expect("first_node", layout.first_node, (self.sequences + 1,), integers, device)
        expect("prefix_length", layout.prefix_length, (self.sequences,), integers, device)
        expect("length", layout.length, (self.sequences,), integers, device)
        expect("mask", layout.mask, (nodes, None), integers, device)
        if not layout.page_table.is_contiguous() or not layout.mask.is_contiguous():
            raise EngineError("page_table and mask must be contiguous")
        if out is None:
            out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        expect("out", out, tuple(queries.shape), (queries.dtype,), device)
        if out.stride(1) != self.head_size:
            raise EngineError("out: heads of a node must lie side by side")
        if nodes == 0:
            return out
        code = library().bidtrie_tree_attention(
            FLOATS[queries.dtype],
            self.head_size,
            self.heads,
            self.kv_heads,
            self.sequences,
            self.max_nodes,
            queries.data_ptr(),
            queries.stride(0),
            out.data_ptr(),
            out.stride(0),
            keys.data_ptr(),
            values.data_ptr(),
            *keys.stride()[:3],
            keys.shape[1],
            layout.page_table.data_ptr(),
            layout.page_table.shape[1],
            layout.first_node.data_ptr(),
            layout.prefix_length.data_ptr(),
            layout.length.data_ptr(),
            layout.mask.data_ptr(),
            layout.mask.shape[1],
            scale,
            self.splits,
            None if self._workspace is None else self._workspace.data_ptr(),
            stream(device),
        )
        check(code, "tree attention")
        return out
