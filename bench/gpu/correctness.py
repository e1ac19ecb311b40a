"""Every kernel on the device against float64, within bounds that follow from its arithmetic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from bidtrie.cuda.candidate_head import candidate_head
from bidtrie.cuda.linear import PackedLinear
from bidtrie.cuda.tree_attention import TreeAttention, TreeLayout
from bidtrie.models.group_tensor import GroupFormat

from bench.gpu.matrices import dense, magnitudes, random_matrix

#: Distance from 1 to the next float32: what a sum in a tensor core may lose, which need not round to nearest.
STEP = 2.0**-23
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}

FORMATS = [
    *(GroupFormat(8, group) for group in (16, 32, 64, 96, 128, 256)),
    *(GroupFormat(4, group) for group in (16, 32, 64, 96, 128, 256)),
    *(GroupFormat(4, group, minimum=True) for group in (16, 32, 128)),
    *(GroupFormat(4, group, table=True) for group in (16, 32, 64)),
    *(GroupFormat(4, group, pattern=pattern) for pattern in ("2:4", "1:4") for group in (16, 32, 64)),
    *(GroupFormat(4, 64, table=True, pattern=pattern) for pattern in ("2:4", "1:4")),
]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: the largest error as a part of what its bound allows (above 1: wrong)."""

    kernel: str
    name: str
    error_of_bound: float


def linears(device: torch.device, seed: int) -> Iterator[Case]:
    """All formats; square, odd and short shapes; 1 to 128 nodes; both types; with a split and without."""
    shapes = [(576, 576), (48, 16), (40, 48), (1000, 1536), (17, 4096)]
    for at, format in enumerate(FORMATS):
        for rows, cols in shapes:
            tensor = random_matrix(format, rows, cols, seed + at)
            exact, sizes, packed = (
                dense(tensor, device),
                magnitudes(tensor, device),
                PackedLinear(tensor, device),
            )
            for nodes in (1, 3, 8, 9, 16, 17, 64, 65, 128):
                for type in (torch.float16, torch.bfloat16):
                    yield _linear(packed, format, exact, sizes, nodes, type, seed)


def _linear(
    packed: PackedLinear,
    format: GroupFormat,
    exact: torch.Tensor,
    sizes: torch.Tensor,
    nodes: int,
    type: torch.dtype,
    seed: int,
) -> Case:
    draw = torch.Generator(exact.device).manual_seed(seed + nodes)
    x = torch.randn(nodes, packed.cols, dtype=torch.float32, device=exact.device, generator=draw).to(type)
    bias = torch.randn(packed.rows, dtype=torch.float32, device=exact.device, generator=draw).to(type)
    out = torch.full((nodes, packed.rows), float("nan"), device=exact.device)
    packed(x, bias, out)
    wanted = x.double() @ exact.T + bias.double()
    # Each product of 16 columns, each group and each part adds once more to a sum of at most this size.
    bound = (packed.cols / 8 + 32) * STEP * (x.double().abs() @ sizes.T + bias.double().abs())
    part = ((out.double() - wanted).abs() / bound).max().item()
    rounded = packed(x, bias)
    if not torch.equal(rounded, out.to(type)):
        part = float("inf")
    return Case("linear", f"{format.name} {packed.rows}x{packed.cols} nodes {nodes} {type}", not_nan(part))


def not_nan(part: float) -> float:
    return float("inf") if part != part else part


def invariance(device: torch.device, seed: int) -> Iterator[Case]:
    """A node's bits are the same whatever else is in the call, within each of the two kernels."""
    x = torch.randn(128, 1536, device=device, generator=torch.Generator(device).manual_seed(seed)).bfloat16()
    for format in (GroupFormat(4, 64), GroupFormat(8, 64)):
        packed = PackedLinear(random_matrix(format, 1536, 1536, seed), device)
        few, many = packed(x[:1]), packed(x[:17])
        for nodes, first in ((2, few), (8, few), (9, few), (16, few), (64, many), (128, many)):
            same = torch.equal(packed(x[:nodes])[0], first[0])
            name = f"batch invariance, {format.name}, {nodes} nodes"
            yield Case("linear", name, 0.0 if same else float("inf"))


def attentions(device: torch.device, seed: int) -> Iterator[Case]:
    """Head sizes, grouped heads, page sizes, prefixes from empty to long, trees from a chain to a star, both types."""
    trees: dict[str, Callable[[int, torch.Generator], list[int]]] = {
        "chain": lambda n, _: list(range(-1, n - 1)),
        "star": lambda n, _: [-1] + [0] * (n - 1),
        "random": lambda n, draw: (
            [-1] + [int(torch.randint(0, i, (1,), generator=draw)) for i in range(1, n)]
        ),
    }
    at = 0
    for head_size, heads, kv_heads in ((64, 9, 3), (64, 4, 4), (128, 32, 8), (128, 28, 4)):
        for page_size in (1, 16, 32):
            for shape, make in trees.items():
                for prefixes, nodes in (
                    ([0], [1]),
                    ([0, 5], [7, 33]),
                    ([700, 16, 1], [16, 1, 70]),
                    ([2048], [40]),
                ):
                    at += 1
                    type = (torch.float16, torch.bfloat16)[at % 2]
                    for splits in (1, 3):
                        yield _attention(
                            *(
                                device,
                                seed + at,
                                head_size,
                                heads,
                                kv_heads,
                                page_size,
                                make,
                                prefixes,
                                nodes,
                            ),
                            *(type, splits, shape),
                        )


def _attention(
    device: torch.device,
    seed: int,
    head_size: int,
    heads: int,
    kv_heads: int,
    page_size: int,
    make: Callable[[int, torch.Generator], list[int]],
    prefixes: list[int],
    nodes: list[int],
    type: torch.dtype,
    splits: int,
    shape: str,
) -> Case:
    draw, on_device = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    total, lengths = sum(nodes), [p + n for p, n in zip(prefixes, nodes, strict=True)]
    pages = [-(-length // page_size) for length in lengths]
    order = torch.randperm(sum(pages) + 3, generator=draw).tolist()
    table = torch.zeros(len(nodes), max(pages), dtype=torch.int32)
    for s, count in enumerate(pages):
        table[s, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    words = -(-max(nodes) // 32)
    mask = torch.zeros(total, words, dtype=torch.int64)
    sees: list[torch.Tensor] = []
    first = [0]
    for s, count in enumerate(nodes):
        parents = make(count, draw)
        visible = torch.zeros(count, count, dtype=torch.bool)
        for i, parent in enumerate(parents):
            if parent >= 0:
                visible[i] = visible[parent]
            visible[i, i] = True
            for j in visible[i].nonzero().flatten().tolist():
                mask[first[s] + i, j // 32] |= 1 << j % 32
        sees.append(torch.cat([torch.ones(count, prefixes[s], dtype=torch.bool), visible], 1))
        first.append(first[s] + count)
    mask32 = torch.where(mask >= 2**31, mask - 2**32, mask).int()
    cache_shape = (sum(pages) + 3, page_size, kv_heads, head_size)
    keys, values = (torch.randn(cache_shape, device=device, generator=on_device).to(type) for _ in range(2))
    queries = (2 * torch.randn(total, heads, head_size, device=device, generator=on_device)).to(type)
    layout = TreeLayout(
        table.to(device),
        torch.tensor(first, dtype=torch.int32, device=device),
        torch.tensor(prefixes, dtype=torch.int32, device=device),
        torch.tensor(lengths, dtype=torch.int32, device=device),
        mask32.to(device),
    )
    attention = TreeAttention(
        *(heads, kv_heads, head_size, len(nodes), total, max(lengths), device), splits=splits
    )
    scale = head_size**-0.5
    out = attention(queries, keys, values, layout, scale).double()

    part = 0.0
    for s in range(len(nodes)):
        where = table[s].long().to(device)
        k, v = (
            c.double()[where].flatten(0, 1)[: lengths[s]].repeat_interleave(heads // kv_heads, 1)
            for c in (keys, values)
        )
        q = queries[first[s] : first[s + 1]].double()
        scores = torch.einsum("nhd,lhd->hnl", q, k) * scale
        sizes = torch.einsum("nhd,lhd->hnl", q.abs(), k.abs()) * scale
        scores = scores.masked_fill(~sees[s].to(device), -torch.inf)
        weights = scores.softmax(-1)
        wanted = torch.einsum("hnl,lhd->nhd", weights, v)
        # Weights are rounded to 16 bits before they meet the values, and scores carry float32's error into the
        # exponent; then the sums and the output are rounded.
        relative = (
            ROUNDING[type] + 4 * (head_size / 8 + 8) * STEP * sizes.amax() + (lengths[s] / 4 + 64) * STEP
        )
        bound = (
            2 * relative * torch.einsum("hnl,lhd->nhd", weights, v.abs())
            + ROUNDING[type] * wanted.abs()
            + 1e-7
        )
        part = max(part, not_nan(((out[first[s] : first[s + 1]] - wanted).abs() / bound).max().item()))
    name = f"{shape} heads {heads}/{kv_heads}x{head_size} page {page_size} prefix {prefixes} nodes {nodes}"
    return Case("tree_attention", f"{name} splits {splits} {type}", part)


def heads(device: torch.device, seed: int) -> Iterator[Case]:
    """Rows with none, one and many candidates, ids outside the vocabulary, equal logits."""
    draw = torch.Generator(device).manual_seed(seed)
    for type in (torch.float16, torch.bfloat16):
        for cols in (576, 1536, 4096):
            head = torch.randn(5000, cols, device=device, generator=draw).to(type) / 16
            hidden = torch.randn(5, cols, device=device, generator=draw).to(type)
            counts = [0, 1, 37, 300, 4]
            offsets = torch.tensor([0, *counts], device=device).cumsum(0).int()
            ids = torch.randint(0, 5000, (sum(counts),), device=device, generator=draw).int()
            ids[-4:] = torch.tensor([7, -1, 5000, 7], device=device)
            logits, best, scores = candidate_head(head, hidden, offsets, ids, max(counts), top_k=5)
            assert best is not None
            assert scores is not None
            part = 0.0
            for row in range(5):
                begin, end = int(offsets[row]), int(offsets[row + 1])
                wanted_ids = ids[begin:end].long()
                known = (wanted_ids >= 0) & (wanted_ids < 5000)
                weights, x = head[wanted_ids.clamp(0, 4999)].double(), hidden[row].double()
                bound = (cols / 32 + 16) * STEP * (weights.abs() @ x.abs()) + 1e-12
                error = (logits[begin:end].double() - weights @ x).abs()[known]
                part = max([part, *(error / bound[known]).tolist()])
                if not torch.isneginf(logits[begin:end][~known]).all():
                    part = float("inf")
                exact = logits[begin:end].double().cpu()
                order = sorted(range(end - begin), key=lambda i: (-exact[i].item(), i))[:5]
                order += [-1] * (5 - len(order))
                if best[row].tolist() != order:
                    part = float("inf")
                for place, index in enumerate(order):
                    if index < 0 or torch.isneginf(exact[index]):
                        continue
                    log_probability = exact.log_softmax(0)[index].item()
                    part = max(
                        part,
                        abs(scores[row, place].item() - log_probability)
                        / 2e-6
                        / (1 + abs(exact[index].item())),
                    )
            yield Case("candidate_head", f"{cols} columns {type}", not_nan(part))


def controls(device: torch.device, seed: int) -> Iterator[Case]:
    """Negative controls: each is wrong on purpose and must exceed its bound."""
    for format in (GroupFormat(4, 64), GroupFormat(8, 64)):
        tensor = random_matrix(format, 576, 576, seed)
        exact, sizes = dense(tensor, device), magnitudes(tensor, device)
        packed = PackedLinear(tensor, device)
        packed.weights[packed.weights.numel() // 2] ^= 0x10
        other = PackedLinear(random_matrix(format, 576, 576, seed + 1), device)
        for wrong in (packed, other):
            yield _linear(wrong, format, exact, sizes, 8, torch.float16, seed)
