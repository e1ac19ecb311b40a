"""Times on the device: each kernel against the bandwidth of a copy, and whole decoding steps against dense and other
int4 kernels, in one run and in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from bidtrie.cuda.linear import PackedLinear
from bidtrie.cuda.tree_attention import TreeAttention, TreeLayout

from bench.gpu.matrices import random_matrix
from bench.gpu.shapes import FORMATS, MODELS, Shape

Call = Callable[[], object]
#: Of a matrix in rotation; 1,024 of the smallest are more than any cache holds.
_MOST_COPIES = 1024


NODES = (1, 4, 16, 64, 128)


def time_us(calls: Sequence[Call], rounds: int = 15) -> list[float]:
    """Microseconds of each round of all calls, captured in a graph so that launches cost what they do in an engine."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    for _ in range(3):
        graph.replay()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return times


def copy_bandwidth(device: torch.device) -> float:
    """GB/s of a copy on the device, bytes read and bytes written together."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median(time_us([lambda: target.copy_(source)])) / 1000


def read_bandwidth(device: torch.device) -> float:
    """GB/s of reading: the sum of 2 GiB of floats."""
    source = torch.rand(1 << 29, device=device)
    out = torch.empty((), device=device)
    return 4 * source.numel() / median(time_us([lambda: torch.sum(source, (0,), out=out)])) / 1000


def linear_rows(device: torch.device, cache_bytes: int) -> list[dict[str, Any]]:
    """Microseconds and GB/s of each linear of the models, ours and dense.

    Weights are in rotation, more than the cache holds.
    """
    rows = []
    for model in MODELS:
        for name, (out, cols) in model.linears().items():
            packed = {
                label: PackedLinear(random_matrix(f, out, cols, 1), device) for label, f in FORMATS.items()
            }
            bf16 = torch.randn(out, cols, device=device).bfloat16()
            other = _torch_int4(out, cols, device)
            for nodes in NODES:
                x = torch.randn(nodes, cols, device=device).bfloat16()
                y = torch.empty(nodes, out, dtype=torch.bfloat16, device=device)
                row: dict[str, Any] = {
                    "model": model.name,
                    "linear": name,
                    "rows": out,
                    "columns": cols,
                    "nodes": nodes,
                }
                for label, linear in packed.items():
                    copies = _copies(linear, cache_bytes)
                    times = time_us([_ours(copy, x, y) for copy in copies])
                    row[label] = _figures(times, len(copies), linear.bytes)
                weights = [
                    bf16.clone()
                    for _ in range(max(2, min(_MOST_COPIES, -(-3 * cache_bytes // (2 * bf16.numel())))))
                ]
                times = time_us([_dense(w, x, y) for w in weights])
                row["bf16"] = _figures(times, len(weights), 2 * bf16.numel())
                if other is not None:
                    pairs = [
                        other.clones()
                        for _ in range(max(2, min(_MOST_COPIES, -(-3 * cache_bytes // other.bytes))))
                    ]
                    times = time_us([_call_int4(pair, x) for pair in pairs])
                    row["torch-int4-g128"] = _figures(times, len(pairs), other.bytes)
                rows.append(row)
    return rows


def _copies(linear: PackedLinear, cache_bytes: int) -> list[PackedLinear]:
    copies = [linear]
    for _ in range(max(1, min(_MOST_COPIES, -(-3 * cache_bytes // linear.bytes)) - 1)):
        copy = object.__new__(PackedLinear)
        copy.__dict__.update(linear.__dict__)
        copy.weights = linear.weights.clone()
        copies.append(copy)
    return copies


def _ours(linear: PackedLinear, x: torch.Tensor, y: torch.Tensor) -> Call:
    return lambda: linear(x, out=y)


def _dense(weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Call:
    return lambda: torch.mm(x, weight.T, out=y)


def _figures(times: Sequence[float], calls: int, bytes_: int) -> dict[str, float]:
    each = sorted(time / calls for time in times)
    middle = median(each)
    return {
        "us": round(middle, 2),
        "us_spread": round(each[-2] - each[1], 2),
        "gb_per_s": round(bytes_ / middle / 1000, 1),
    }


@dataclass(slots=True)
class _TorchInt4:
    """PyTorch's own int4 product (`_weight_int4pack_mm`, groups of 128 with a scale and a zero)."""

    packed: torch.Tensor
    scales: torch.Tensor

    @property
    def bytes(self) -> int:
        return self.packed.numel() * self.packed.element_size() + 2 * self.scales.numel()

    def clones(self) -> "_TorchInt4":
        return _TorchInt4(self.packed.clone(), self.scales.clone())


Weight = PackedLinear | _TorchInt4 | torch.Tensor
#: Nodes of a step.
_STEPS = (1, 16, 64)


def _torch_int4(rows: int, cols: int, device: torch.device) -> _TorchInt4 | None:
    if cols % 128 or rows % 64:
        return None
    try:
        codes = torch.randint(0, 255, (rows, cols // 2), dtype=torch.uint8, device=device)
        packed = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
        scales = torch.rand(cols // 128, rows, 2, device=device).bfloat16() / 100
        return _TorchInt4(packed, scales)
    except RuntimeError:
        return None


def _call_int4(pair: _TorchInt4, x: torch.Tensor) -> Call:
    return lambda: torch.ops.aten._weight_int4pack_mm(x, pair.packed, 128, pair.scales)


def step_rows(device: torch.device) -> list[dict[str, Any]]:
    """Milliseconds of a whole decoding step's linears and attention, all layers in one graph.

    Ours by format, dense bfloat16 with PyTorch's attention over the same cache, PyTorch's int4. Norms, activations and
    head are in none of them.
    """
    rows = {
        (model.name, nodes): {"model": model.name, "nodes": nodes, "prefix": 256}
        for model in MODELS
        for nodes in _STEPS
    }
    for model in MODELS:
        for label in ("bf16", "torch-int4-g128", *FORMATS):
            weights = _weights(model, label, device)
            if weights is None:
                continue
            for nodes in _STEPS:
                times = sorted(time / 1000 for time in time_us(_step(model, nodes, weights, device), 11))
                figures = {"ms": round(median(times), 4), "ms_spread": round(times[-2] - times[1], 4)}
                rows[model.name, nodes] |= {label: figures}
            del weights
            torch.cuda.empty_cache()
    return list(rows.values())


def _weights(model: Shape, label: str, device: torch.device) -> list[dict[str, Weight]] | None:
    """Each layer's linears."""
    first: dict[str, Weight] = {}
    for name, (rows, cols) in model.linears().items():
        if label == "bf16":
            first[name] = torch.randn(rows, cols, device=device).bfloat16()
        elif label == "torch-int4-g128":
            other = _torch_int4(rows, cols, device)
            if other is None:
                return None
            first[name] = other
        else:
            first[name] = PackedLinear(random_matrix(FORMATS[label], rows, cols, 1), device)
    return [{name: _copy(weight) for name, weight in first.items()} for _ in range(model.layers)]


def _copy(weight: Weight) -> Weight:
    if isinstance(weight, torch.Tensor):
        return weight.clone()
    return weight.clones() if isinstance(weight, _TorchInt4) else _copies(weight, 0)[1]


def _step(model: Shape, nodes: int, weights: list[dict[str, Weight]], device: torch.device) -> list[Call]:
    shapes = model.linears()
    inputs = {name: torch.randn(nodes, cols, device=device).bfloat16() for name, (_, cols) in shapes.items()}
    outputs = {
        name: torch.empty(nodes, rows, dtype=torch.bfloat16, device=device)
        for name, (rows, _) in shapes.items()
    }
    ours = isinstance(weights[0]["qkv"], PackedLinear)
    attention = _attention(model, nodes, 256, device, dense=not ours)
    calls: list[Call] = []
    for layer in weights:
        for name, weight in layer.items():
            x, y = inputs[name], outputs[name]
            if isinstance(weight, torch.Tensor):
                calls.append(_dense(weight, x, y))
            elif isinstance(weight, PackedLinear):
                calls.append(_ours(weight, x, y))
            else:
                calls.append(_call_int4(weight, x))
            if name == "qkv":
                calls.append(attention)
    return calls


def _attention(model: Shape, nodes: int, prefix: int, device: torch.device, dense: bool) -> Call:
    length = prefix + nodes
    pages = -(-length // 16)
    queries = torch.randn(nodes, model.heads, model.head_size, device=device).bfloat16()
    cache_shape = (pages, 16, model.kv_heads, model.head_size)
    keys, values = (torch.randn(cache_shape, device=device).bfloat16() for _ in range(2))
    if dense:
        k, v = (c.flatten(0, 1)[:length].transpose(0, 1)[None] for c in (keys, values))
        q = queries.transpose(0, 1)[None]
        mask = torch.ones(nodes, length, dtype=torch.bool, device=device).tril(prefix)
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    words = -(-nodes // 32)
    mask64 = torch.zeros(nodes, words, dtype=torch.int64)
    for i in range(nodes):
        for j in range(i + 1):
            mask64[i, j // 32] |= 1 << j % 32
    layout = TreeLayout(
        torch.arange(pages, dtype=torch.int32, device=device)[None],
        torch.tensor([0, nodes], dtype=torch.int32, device=device),
        torch.tensor([prefix], dtype=torch.int32, device=device),
        torch.tensor([length], dtype=torch.int32, device=device),
        torch.where(mask64 >= 2**31, mask64 - 2**32, mask64).int().to(device),
    )
    kernel = TreeAttention(model.heads, model.kv_heads, model.head_size, 1, nodes, length, device)
    out = torch.empty_like(queries)
    return lambda: kernel(queries, keys, values, layout, model.head_size**-0.5, out)
