"""A weight of a layer, or of a merged layer's part: as codes, or as plain numbers."""

import torch
from torch import nn

from bidtrie.engine.vllm import ops
from bidtrie.engine.vllm.codes import codes_of
from bidtrie.models.group_tensor import GroupTensor


class Part(nn.Module):
    """What both kinds do. x is [T, cols]."""

    rows: int

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """x times the transposed weight: [T, rows]."""
        raise NotImplementedError

    def embedding(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight: [T, cols]."""
        raise NotImplementedError

    def candidates(self, x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Of node t the columns ids[offsets[t]:offsets[t + 1]] of `linear`, one after the other."""
        raise NotImplementedError


class CodedPart(Part):
    """Codes, as `torch.ops.bidtrie` takes them."""

    def __init__(self, tensor: GroupTensor, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.rows = tensor.shape[0]
        self._dtype = dtype
        self.codes = codes_of(tensor, device)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.bidtrie.linear(x, *self.codes)
        return out

    def embedding(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.bidtrie.embedding(ids, *self.codes)
        return out.to(self._dtype)

    def candidates(self, x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.bidtrie.candidate_linear(x, offsets, ids, *self.codes)
        return out


class PlainPart(Part):
    """A weight [rows, cols] of numbers."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.rows = weight.shape[0]
        self.weight = nn.Parameter(weight, requires_grad=False)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)

    def embedding(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.weight)

    def candidates(self, x: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.bidtrie.candidate_head(x, offsets, ids, self.weight)
        return out


def part_of(tensor: GroupTensor, dtype: torch.dtype, device: torch.device, dequantize: bool) -> Part:
    """Codes where the device has kernels for them, else plain numbers; those too if `dequantize`."""
    if ops.has_codes_kernel(device, dtype) and not dequantize:
        return CodedPart(tensor, dtype, device)
    return PlainPart(torch.from_numpy(tensor.dequantize()).to(device, dtype))
