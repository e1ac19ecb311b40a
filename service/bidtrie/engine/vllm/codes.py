"""The arguments CODES of the ops (`bidtrie.engine.vllm.ops`) as a GroupTensor, and as numbers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bidtrie.errors import EngineError
from bidtrie.models.group_format import KEPT_OF_FOUR, GroupFormat
from bidtrie.models.group_tensor import POSITION_SHIFTS, GroupTensor


def array(tensor: torch.Tensor) -> NDArray[Any]:
    """On the host; of a tensor of the CPU the same memory."""
    return tensor.detach().contiguous().cpu().numpy()


def codes_of(tensor: GroupTensor, device: torch.device) -> tuple[Any, ...]:
    """The arguments CODES, on the device."""
    arrays = (tensor.codes, tensor.scales, tensor.minimums, tensor.table, tensor.positions)
    return (
        *(None if a is None else torch.from_numpy(np.array(a)).to(device) for a in arrays),
        tensor.format.bits,
        tensor.format.group_size,
        tensor.format.pattern,
    )


def columns(codes: torch.Tensor, bits: int, pattern: str) -> int:
    """Columns of the dense weight."""
    return codes.shape[1] * 8 // bits * 4 // KEPT_OF_FOUR[pattern]


def group_tensor(
    codes: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor | None,
    table: torch.Tensor | None,
    positions: torch.Tensor | None,
    bits: int,
    group_size: int,
    pattern: str,
) -> GroupTensor:
    """Raises EngineError if the parts do not fit each other."""
    tensor = GroupTensor(
        GroupFormat(bits, group_size, minimums is not None, table is not None, pattern),
        (codes.shape[0], columns(codes, bits, pattern)),
        array(codes),
        array(scales),
        *(None if part is None else array(part) for part in (minimums, table, positions)),
    )
    if problem := tensor.problem():
        raise EngineError(problem)
    return tensor


def dequantized_rows(
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
    """Rows `ids` (int64) of the weight, float32 [ids, cols], on its device: what GroupTensor.dequantize gives."""
    rows, cols = len(ids), columns(codes, bits, pattern)
    kept = codes.shape[1] * 8 // bits
    in_group = group_size * kept // cols

    def per_weight(groups: torch.Tensor) -> torch.Tensor:
        return groups[ids].float().repeat_interleave(in_group, 1)[:, :kept]

    chosen = codes[ids]
    if bits == 8:
        values = chosen.view(torch.int8).float()
    else:
        pairs = torch.stack([chosen & 15, chosen >> 4], 2).reshape(rows, kept)
        if table is not None:
            values = table.float()[pairs.long()]
        else:
            values = pairs.float() - (0 if minimums is not None else 8)
    values *= per_weight(scales)
    if minimums is not None:
        values += per_weight(minimums)
    if positions is None:
        return values
    shifts = torch.from_numpy(POSITION_SHIFTS).to(codes.device)
    places = (positions[ids][:, :, None] >> shifts & 3).reshape(rows, cols // 4, -1).long()
    dense = torch.zeros(rows, cols // 4, 4, device=codes.device)
    return dense.scatter_(2, places, values.reshape(rows, cols // 4, -1)).reshape(rows, cols)
