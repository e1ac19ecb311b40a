"""`torch.ops.bidtrie.*` on the device against float64: what the vLLM engine calls there."""

from collections.abc import Iterator

import numpy as np
import torch
from bidtrie.engine.vllm import ops  # noqa: F401 (registers them)
from bidtrie.engine.vllm.codes import codes_of

from bench.gpu.correctness import FORMATS, ROUNDING, STEP, Case, not_nan
from bench.gpu.matrices import dense, magnitudes, random_matrix

_ROWS, _COLS = 208, 576
_TYPES = (torch.float16, torch.bfloat16)


def _case(op: str, name: str, out: torch.Tensor, wanted: torch.Tensor, bound: torch.Tensor) -> Case:
    return Case(op, name, not_nan(((out.double() - wanted).abs() / (bound + 1e-30)).max().item()))


def on_codes(device: torch.device, seed: int) -> Iterator[Case]:
    """Every format: products of few and of many nodes, candidates, rows."""
    draw = torch.Generator(device).manual_seed(seed)
    for at, format in enumerate(FORMATS):
        tensor = random_matrix(format, _ROWS, _COLS, seed + at)
        codes, exact, sizes = codes_of(tensor, device), dense(tensor, device), magnitudes(tensor, device)
        ids = torch.randint(0, _ROWS, (50,), device=device, generator=draw).int()
        rows = torch.ops.bidtrie.embedding(ids, *codes)
        wanted_rows = torch.from_numpy(tensor.dequantize())[ids.cpu().long()]
        yield Case("op embedding", format.name, 0.0 if torch.equal(rows.cpu(), wanted_rows) else float("inf"))
        for nodes in (1, 16, 17, 300):
            for type in _TYPES:
                x = torch.randn(nodes, _COLS, device=device, generator=draw).to(type)
                wanted, size = x.double() @ exact.T, x.double().abs() @ sizes.T
                bound = (_COLS / 8 + 32) * STEP * size + ROUNDING[type] * wanted.abs()
                name = f"{format.name} nodes {nodes} {type}"
                yield _case("op linear", name, torch.ops.bidtrie.linear(x, *codes), wanted, bound)
                counts = torch.randint(0, 9, (nodes,), device=device, generator=draw)
                offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
                some = torch.randint(0, _ROWS, (int(offsets[-1]),), device=device, generator=draw).int()
                if not len(some):
                    continue
                out = torch.ops.bidtrie.candidate_linear(x, offsets, some, *codes)
                at_row = torch.arange(nodes, device=device).repeat_interleave(counts), some.long()
                yield _case("op candidate_linear", name, out, wanted[at_row], bound[at_row])


def on_plain_weights(device: torch.device, seed: int) -> Iterator[Case]:
    """The head of a model that is not quantized, of types and columns with a kernel and without."""
    draw = torch.Generator(device).manual_seed(seed)
    for type in (*_TYPES, torch.float32):
        for cols in (576, 100):
            weight = torch.randn(1000, cols, device=device, generator=draw).to(type)
            x = torch.randn(5, cols, device=device, generator=draw).to(type)
            offsets = torch.tensor([0, 3, 3, 40, 41, 60], dtype=torch.int32, device=device)
            ids = torch.randint(0, 1000, (60,), device=device, generator=draw).int()
            at = torch.arange(5, device=device).repeat_interleave(offsets.diff()), ids.long()
            wanted = (x.double() @ weight.double().T)[at]
            size = (x.double().abs() @ weight.double().abs().T)[at]
            bound = (cols / 8 + 32) * STEP * size + ROUNDING.get(type, 0) * wanted.abs()
            out = torch.ops.bidtrie.candidate_head(x, offsets, ids, weight)
            yield _case("op candidate_head", f"{cols} columns {type}", out, wanted, bound)


def _view(seed: int, nodes: int, groups: int, slots: int) -> list[torch.Tensor]:
    """Prefixes of 0 to 700 slots; nodes of the groups in any order; ancestors of earlier steps among them."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(slots)
    prefixes = [order[700 * g : 700 * g + rng.integers(0, 701)] for g in range(groups)]
    trees = [order[700 * groups + 100 * g :][:100] for g in range(groups)]
    group = rng.integers(0, groups, nodes)
    if seed % 2:
        group.sort()
    paths = [rng.choice(trees[g], rng.integers(1, 60), replace=False) for g in group]
    arrays = (
        group,
        np.cumsum([0, *map(len, prefixes)]),
        np.concatenate(prefixes),
        np.cumsum([0, *map(len, paths)]),
        np.concatenate(paths),
    )
    return [torch.from_numpy(array.astype(np.int32)) for array in arrays]


def attentions(device: torch.device, seed: int) -> Iterator[Case]:
    """Random lists of slots, heads with a kernel and without, all types."""
    slots = 8192
    at = 0
    for heads, kv_heads, size in ((9, 3, 64), (32, 8, 128), (4, 2, 80)):
        for nodes, groups in ((1, 1), (33, 1), (40, 4), (130, 8)):
            for type in (*_TYPES, torch.float32):
                at += 1
                draw = torch.Generator(device).manual_seed(seed + at)
                shape = (slots, kv_heads, size)
                keys, values = (torch.randn(shape, device=device, generator=draw).to(type) for _ in range(2))
                query = torch.randn(nodes, heads, size, device=device, generator=draw).to(type)
                view = _view(seed + at, nodes, groups, slots)
                out = torch.ops.bidtrie.tree_attention(
                    query, keys, values, *(tensor.to(device) for tensor in view), size**-0.5
                )
                name = f"heads {heads}/{kv_heads}x{size} nodes {nodes} groups {groups} {type}"
                yield _attention(name, out, query, keys, values, view)


def _attention(
    name: str,
    out: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    view: list[torch.Tensor],
) -> Case:
    group, prefix_offsets, prefix, path_offsets, path = (tensor.tolist() for tensor in view)
    repeats, size = query.shape[1] // keys.shape[1], query.shape[2]
    rounding = ROUNDING.get(query.dtype, 2.0**-24)
    part = 0.0
    for node, g in enumerate(group):
        seen = [*prefix[prefix_offsets[g] : prefix_offsets[g + 1]]]
        seen += path[path_offsets[node] : path_offsets[node + 1]]
        k, v = (cache[seen].double().repeat_interleave(repeats, 1) for cache in (keys, values))
        q = query[node].double()
        scores = torch.einsum("hd,lhd->hl", q, k) * size**-0.5
        most = (torch.einsum("hd,lhd->hl", q.abs(), k.abs()) * size**-0.5).amax()
        weights = scores.softmax(-1)
        wanted = torch.einsum("hl,lhd->hd", weights, v)
        # As for the kernel itself (bench.gpu.correctness).
        relative = rounding + 4 * (size / 8 + 8) * STEP * most + (len(seen) / 4 + 64) * STEP
        bound = 2 * relative * torch.einsum("hl,lhd->hd", weights, v.abs()) + rounding * wanted.abs() + 1e-7
        part = max(part, not_nan(((out[node].double() - wanted).abs() / bound).max().item()))
    return Case("op tree_attention", name, part)


def controls(device: torch.device, seed: int) -> Iterator[Case]:
    """Negative controls: a node that sees one slot less, and another matrix."""
    draw = torch.Generator(device).manual_seed(seed)
    keys, values = (torch.randn(8192, 3, 64, device=device, generator=draw).half() for _ in range(2))
    query = torch.randn(33, 9, 64, device=device, generator=draw).half()
    view = _view(seed, 33, 1, 8192)
    fewer = [*view[:1], view[1] - torch.tensor([0, 1], dtype=torch.int32), view[2][:-1], *view[3:]]
    out = torch.ops.bidtrie.tree_attention(query, keys, values, *(t.to(device) for t in fewer), 0.125)
    yield _attention("a slot less", out, query, keys, values, view)
    tensor, other = (random_matrix(FORMATS[0], _ROWS, _COLS, seed + i) for i in range(2))
    x = torch.randn(4, _COLS, device=device, generator=draw).half()
    wanted, size = x.double() @ dense(tensor, device).T, x.double().abs() @ magnitudes(tensor, device).T
    out = torch.ops.bidtrie.linear(x, *codes_of(other, device))
    yield _case(
        "op linear", "another matrix", out, wanted, (_COLS / 8 + 32) * STEP * size + wanted.abs() / 2048
    )
