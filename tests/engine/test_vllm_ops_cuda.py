"""The ops of a GPU without one: the kernels, which `make gpu-check` proves, are stood in for by PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.cuda.tree_attention import TreeLayout
from bidtrie.engine.vllm import ops, ops_cuda
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from kernels.test_tree_attention import arrays, plan_of


class _Attention:
    """The kernel's contract, in float64, row by row."""

    made = 0

    def __init__(
        self, heads: int, kv_heads: int, size: int, runs: int, nodes: int, longest: int, _: Any
    ) -> None:
        _Attention.made += 1
        self.group, self.runs, self.longest = heads // kv_heads, runs, longest

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: TreeLayout,
        scale: float,
    ) -> torch.Tensor:
        assert keys.shape[1] == 1, "pages of one slot"
        assert layout.page_table.shape == (self.runs, self.longest)
        out = torch.empty_like(queries)
        for run in range(self.runs):
            slots = layout.page_table[run, : layout.length[run]].long()
            k, v = (cache[slots, 0].double().repeat_interleave(self.group, 1) for cache in (keys, values))
            prefix = int(layout.prefix_length[run])
            for node in range(int(layout.first_node[run]), int(layout.first_node[run + 1])):
                behind = torch.arange(len(slots) - prefix)
                bits = layout.mask[node, behind // 32] >> behind % 32 & 1
                visible = torch.cat([torch.ones(prefix, dtype=torch.bool), bits.bool()])
                scores = torch.einsum("hd,lhd->hl", queries[node].double(), k) * scale
                weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
                out[node] = torch.einsum("hl,lhd->hd", weights, v).to(out.dtype)
        return out


@pytest.mark.parametrize("prefixes", [[0], [5, 0, 70]])
def test_attention_gets_the_lists_of_the_view(monkeypatch: pytest.MonkeyPatch, prefixes: list[int]) -> None:
    monkeypatch.setattr(ops_cuda, "TreeAttention", _Attention)
    _Attention.made = 0
    _, (_, _, _, *view) = plan_of(1, prefixes, 40)
    tensors = [torch.from_numpy(array) for array in arrays(2, 40)]
    views = [torch.from_numpy(array) for array in view]
    wanted = ops.gathered_attention(*tensors, *views, 0.3)
    for _ in range(2):
        out = ops_cuda.tree_attention(*tensors, *views, 0.3)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=3e-6)
    assert _Attention.made == 1, "all layers of a step share its lists"
    _, (_, _, _, *view) = plan_of(3, prefixes, 40)
    views = [torch.from_numpy(array) for array in view]
    wanted = ops.gathered_attention(*tensors, *views, 0.3)
    np.testing.assert_allclose(ops_cuda.tree_attention(*tensors, *views, 0.3), wanted, rtol=0, atol=3e-6)
    assert ops_cuda.tree_attention(tensors[0][:0], *tensors[1:], *views, 0.3).shape[0] == 0


class _Linear:
    """The kernel's contract: up to so many nodes, bytes in place."""

    def __init__(self, tensor: GroupTensor, device: torch.device, max_nodes: int) -> None:
        self.rows, self._max_nodes = tensor.shape[0], max_nodes
        self._weight = torch.from_numpy(tensor.dequantize())

    def __call__(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        assert x.shape[0] <= self._max_nodes
        return out.copy_((x.float() @ self._weight.T).to(x.dtype))


def test_a_linear_of_any_number_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_cuda, "PackedLinear", _Linear)
    rng = np.random.default_rng(1)
    tensor = quantize(rng.standard_normal((48, 64)).astype(np.float32), GroupFormat(4, 32))
    codes = torch.from_numpy(np.array(tensor.codes))
    rest = (torch.from_numpy(np.array(tensor.scales)), None, None, None, 4, 32, "dense")
    for nodes in (0, 1, 128, 129, 300):
        x = torch.from_numpy(rng.standard_normal((nodes, 64)).astype(np.float32)).bfloat16()
        out = ops_cuda.linear(x, codes, *rest)
        wanted = x.float() @ torch.from_numpy(tensor.dequantize()).T
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), wanted, rtol=2**-8, atol=0.02)
