"""`torch.ops.bidtrie.*`: what the vLLM engine computes that vLLM and PyTorch do not have.

Tensors in, one tensor out; nothing is changed in place. T nodes of a step, N candidates, S KV slots, G sequences.

    linear(x, CODES) -> [T, rows]                                  x [T, cols]
    embedding(ids, CODES) -> float32 [T, cols]                     rows of the weight; ids int [T]
    candidate_linear(x, offsets, ids, CODES) -> [N]                of node t the columns ids[offsets[t]:offsets[t + 1]]
    candidate_head(x, offsets, ids, weight) -> [N]                 the same of a plain weight [rows, cols]
    tree_attention(query, key_cache, value_cache, VIEW, scale) -> [T, heads, head_dim]

CODES is a GroupTensor (bidtrie.models.group_tensor): codes uint8, scales float16 [rows, groups], minimums float16 or
None, table int8 [16] or None, positions uint8 or None, then bits, group_size, pattern. Outputs have the type of `x`. A
weight is packed at its first use and the result kept with `codes`: codes must not change in place.

VIEW says what a node sees, as KV slots in order: group int32 [T], the sequence of each node; prefix_offsets int32
[G + 1] and prefix_slots int32, each sequence's committed prefix; path_offsets int32 [T + 1] and path_slots int32, each
node's ancestors below the prefix and the node itself. query [T, heads, head_dim], caches [S, kv_heads, head_dim], all
of one type; query head h looks at key-value head h // (heads / kv_heads).

`offsets` and `ids` are int32. Kernels for the CPU are those of kernels/cpu, which take float32 and round the inputs of
compressed weights to 8 bits in blocks of 32; those for a GPU are in `ops_cuda`, where they were built. Everything but
`linear` runs on any other device through PyTorch; `linear` needs a kernel for the device: `has_codes_kernel`.
"""

import threading
from dataclasses import dataclass
from typing import Any

import torch

from bidtrie import _native
from bidtrie.cuda.library import is_built
from bidtrie.cuda.tensors import FLOATS
from bidtrie.engine.vllm import ops_cuda
from bidtrie.engine.vllm.codes import array, columns, dequantized_rows, group_tensor

_CODES = (
    "Tensor codes, Tensor scales, Tensor? minimums, Tensor? table, Tensor? positions, "
    "int bits, int group_size, str pattern"
)
_VIEW = "Tensor group, Tensor prefix_offsets, Tensor prefix_slots, Tensor path_offsets, Tensor path_slots"

_library = torch.library.Library("bidtrie", "DEF")
_library.define(f"linear(Tensor x, {_CODES}) -> Tensor")
_library.define(f"embedding(Tensor ids, {_CODES}) -> Tensor")
_library.define(f"candidate_linear(Tensor x, Tensor offsets, Tensor ids, {_CODES}) -> Tensor")
_library.define("candidate_head(Tensor x, Tensor offsets, Tensor ids, Tensor weight) -> Tensor")
_library.define(
    f"tree_attention(Tensor query, Tensor key_cache, Tensor value_cache, {_VIEW}, float scale) -> Tensor"
)


@dataclass(frozen=True, slots=True)
class TreeView:
    """VIEW, see above: the arguments of `tree_attention` that are the same for every layer of a step."""

    group: torch.Tensor
    prefix_offsets: torch.Tensor
    prefix_slots: torch.Tensor
    path_offsets: torch.Tensor
    path_slots: torch.Tensor

    def as_arguments(self) -> tuple[torch.Tensor, ...]:
        return self.group, self.prefix_offsets, self.prefix_slots, self.path_offsets, self.path_slots


def has_codes_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `linear` takes inputs of this type on this kind of device; where not, weights have to be dequantized."""
    if device.type == "cuda":
        return is_built() and dtype in FLOATS
    return device.type == "cpu"


class _Team:
    """The threads of the native kernels: one team a process, one call at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = _native.ThreadTeam(1)

    def resize(self, threads: int) -> None:
        with self.lock:
            if threads != self.threads.size:
                self.threads = _native.ThreadTeam(threads)


_team = _Team()


def use_threads(threads: int) -> None:
    """How many threads the CPU's kernels take, the calling one included."""
    _team.resize(threads)


# The CPU.


def _packed(codes: torch.Tensor, *rest: object) -> _native.PackedMatrix:
    packed = getattr(codes, "_bidtrie_packed", None)
    if packed is None:
        packed = _native.PackedMatrix(group_tensor(codes, *rest))  # type: ignore[arg-type]
        codes._bidtrie_packed = packed  # type: ignore[attr-defined]
    return packed


def _linear_cpu(x: torch.Tensor, *codes: object) -> torch.Tensor:
    packed = _packed(*codes)  # type: ignore[arg-type]
    with _team.lock:
        out = packed.linear(array(x.float()), team=_team.threads)
    return torch.from_numpy(out).to(x.dtype)


def _candidate_linear_cpu(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, *codes: object
) -> torch.Tensor:
    packed = _packed(*codes)  # type: ignore[arg-type]
    with _team.lock:
        out = packed.candidates(array(x.float()), array(offsets), array(ids), team=_team.threads)
    return torch.from_numpy(out).to(x.dtype)


def _tree_attention_cpu(
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
    view = (group, prefix_offsets, prefix_slots, path_offsets, path_slots)
    if query.dtype != torch.float32 or query.shape[2] % 16:
        return gathered_attention(query, key_cache, value_cache, *view, scale)
    with _team.lock:
        out = _native.tree_attention(
            array(query),
            array(key_cache),
            array(value_cache),
            array(group),
            array(prefix_offsets),
            array(prefix_slots),
            array(path_offsets),
            array(path_slots),
            scale,
            _team.threads,
        )
    return torch.from_numpy(out)


# Any device.


def gathered_attention(
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
    """`tree_attention` in PyTorch: what each node sees is gathered, padded to the longest of the step.

    Takes memory for T x longest context keys and values.
    """
    nodes, heads, dim = query.shape
    kv_heads = key_cache.shape[1]
    if not nodes:
        return torch.empty_like(query)
    group = group.long()
    prefix, path = prefix_offsets.diff()[group].long(), path_offsets.diff().long()
    place = torch.arange(int((prefix + path).max()), device=query.device)[None, :]
    of_prefix = place < prefix[:, None]
    visible = place < (prefix + path)[:, None]
    in_prefix = (prefix_offsets[group][:, None] + place).clamp(max=max(len(prefix_slots) - 1, 0))
    in_path = (path_offsets[:-1][:, None] + place - prefix[:, None]).clamp(0, len(path_slots) - 1)
    slots = path_slots[in_path]
    if len(prefix_slots):
        slots = torch.where(of_prefix, prefix_slots[in_prefix], slots)
    slots = slots.long()
    queries = query.view(nodes, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("tghd,tlgd->tghl", queries.float(), key_cache[slots].float()) * scale
    weights = scores.masked_fill(~visible[:, None, None, :], float("-inf")).softmax(-1)
    out = torch.einsum("tghl,tlgd->tghd", weights, value_cache[slots].float())
    return out.reshape(nodes, heads, dim).to(query.dtype)


def _embedding(ids: torch.Tensor, *codes: Any) -> torch.Tensor:
    return dequantized_rows(ids.long(), *codes)


def _row_products(x: torch.Tensor, offsets: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of node t its products with rows offsets[t] to offsets[t + 1] of `wanted`, float32 [N, cols]: [N]."""
    rows = x.repeat_interleave(offsets.diff().long(), dim=0, output_size=len(wanted))
    return (rows.float() * wanted).sum(-1).to(x.dtype)


def _candidate_linear(x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, *codes: Any) -> torch.Tensor:
    return _row_products(x, offsets, dequantized_rows(ids.long(), *codes))


def _candidate_head(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    return _row_products(x, offsets, weight[ids.long()].float())


_library.impl("linear", _linear_cpu, "CPU")
_library.impl("embedding", _embedding, "CompositeExplicitAutograd")
_library.impl("candidate_linear", _candidate_linear_cpu, "CPU")
_library.impl("candidate_linear", _candidate_linear, "CompositeExplicitAutograd")
_library.impl("candidate_head", _candidate_head, "CompositeExplicitAutograd")
_library.impl("tree_attention", _tree_attention_cpu, "CPU")
_library.impl("tree_attention", gathered_attention, "CompositeExplicitAutograd")


# A GPU.


def _candidate_head_cuda(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    takes = ops_cuda.candidate_head if ops_cuda.has_head(x, weight) else _candidate_head
    return takes(x, offsets, ids, weight)


def _tree_attention_cuda(query: torch.Tensor, *rest: Any) -> torch.Tensor:
    takes = ops_cuda.tree_attention if ops_cuda.has_attention(query) else gathered_attention
    return takes(query, *rest)


if is_built():
    _library.impl("linear", ops_cuda.linear, "CUDA")
    _library.impl("candidate_head", _candidate_head_cuda, "CUDA")
    _library.impl("tree_attention", _tree_attention_cuda, "CUDA")


# Shapes and types alone, for torch.compile and exports.


def _linear_fake(x: torch.Tensor, codes: torch.Tensor, *rest: object) -> torch.Tensor:
    return x.new_empty(x.shape[0], codes.shape[0])


def _embedding_fake(
    ids: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor | None,
    table: torch.Tensor | None,
    positions: torch.Tensor | None,
    bits: int,
    group_size: int,
    pattern: str,
) -> torch.Tensor:
    shape = ids.shape[0], columns(codes, bits, pattern)
    return torch.empty(shape, dtype=torch.float32, device=codes.device)


def _candidate_linear_fake(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, *rest: object
) -> torch.Tensor:
    return x.new_empty(ids.shape[0])


def _candidate_head_fake(
    x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    return x.new_empty(ids.shape[0])


def _tree_attention_fake(query: torch.Tensor, *rest: object) -> torch.Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


for _op, _fake in (
    ("linear", _linear_fake),
    ("embedding", _embedding_fake),
    ("candidate_linear", _candidate_linear_fake),
    ("candidate_head", _candidate_head_fake),
    ("tree_attention", _tree_attention_fake),
):
    torch.library.register_fake(f"bidtrie::{_op}", _fake, lib=_library)
