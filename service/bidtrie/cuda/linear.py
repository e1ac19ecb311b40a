"""Linears of 8 and 4 bits, dense and sparse."""

import ctypes

import numpy as np
import torch

from bidtrie.cuda.library import CODES, PATTERNS, check, library
from bidtrie.cuda.tensors import FLOATS, expect, expect_aligned, multiprocessors, stream
from bidtrie.errors import EngineError, ModelError
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import GroupTensor

#: Nodes up to which the kernel for few takes a dense matrix (kernels/cuda/linear.h).
_FEW = 16


class PackedLinear:
    """A matrix [rows, cols] on a GPU, packed for its kernels (kernels/include/bidtrie/weights_gpu.h).

    Its workspace is its own, so that calls of one matrix belong to one stream at a time. The bits of a result depend on
    the matrix and on which kernel is used (up to 16 nodes, and beyond), never on the other nodes of a call.
    """

    def __init__(self, tensor: GroupTensor, device: torch.device, max_nodes: int = 128) -> None:
        """Raises ModelError for columns that are not in multiples of 16, and for positions that do not ascend."""
        self.rows, self.cols = tensor.shape
        self.device, self.max_nodes = device, max_nodes
        self._format = _numbers(tensor.format)
        size = library().bidtrie_packed_bytes(*self._format, self.rows, self.cols)
        if size < 0:
            raise ModelError(f"the GPU kernels do not take {tensor.format.name} with {self.cols} columns")
        packed = np.empty(size, np.uint8)
        arrays = [tensor.codes, tensor.scales, tensor.minimums, tensor.positions]
        held = [None if array is None else np.ascontiguousarray(array) for array in arrays]
        problem = library().bidtrie_pack(
            *self._format,
            self.rows,
            self.cols,
            *(None if array is None else array.ctypes.data for array in held),
            packed.ctypes.data,
        )
        if problem:
            raise ModelError("positions of a sparse matrix do not ascend in every four columns")
        self.weights = torch.from_numpy(packed).to(device)
        self._table = None if tensor.table is None else (ctypes.c_int8 * 16)(*tensor.table.tolist())
        processors = multiprocessors(device)
        few, many = (
            self._plan(nodes, processors) for nodes in (min(_FEW, max_nodes), max(_FEW + 1, max_nodes))
        )
        self._cuts = {True: few[:2], False: many[:2]}
        counters, partials = max(few[2], many[2]), max(few[3], many[3])
        self._counters = torch.zeros(counters, dtype=torch.int32, device=device)
        self._partials = torch.empty(partials, dtype=torch.float32, device=device)

    def _plan(self, nodes: int, processors: int) -> list[int]:
        plan = (ctypes.c_int64 * 4)()
        library().bidtrie_linear_plan(*self._format, self.rows, self.cols, nodes, processors, plan)
        return list(plan)

    @property
    def bytes(self) -> int:
        """Of the packed weights."""
        return int(self.weights.numel())

    def __call__(
        self, x: torch.Tensor, bias: torch.Tensor | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [nodes, cols] float16 or bfloat16 -> [nodes, rows] of the same type, or what `out` is (float32 too).

        Nothing is allocated if `out` is given. Raises EngineError naming an argument that does not fit.
        """
        expect("x", x, (None, self.cols), tuple(FLOATS), self.device)
        expect_aligned("x", x, x.stride(0))
        nodes = x.shape[0]
        if nodes > self.max_nodes:
            raise EngineError(f"x has {nodes} rows, expected at most max_nodes = {self.max_nodes}")
        if out is None:
            out = torch.empty(nodes, self.rows, dtype=x.dtype, device=self.device)
        expect("out", out, (nodes, self.rows), (x.dtype, torch.float32), self.device)
        if bias is not None:
            expect("bias", bias, (self.rows,), (x.dtype,), self.device)
        if nodes == 0:
            return out
        code = library().bidtrie_linear(
            *self._format,
            self.rows,
            self.cols,
            self.weights.data_ptr(),
            self._table,
            FLOATS[x.dtype],
            x.data_ptr(),
            x.stride(0),
            nodes,
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            out.stride(0),
            out.dtype == torch.float32,
            *self._cuts[nodes <= _FEW],
            self._counters.data_ptr(),
            self._partials.data_ptr(),
            stream(self.device),
        )
        check(code, "linear")
        return out


def _numbers(format: GroupFormat) -> tuple[int, int, int]:
    kind = "-min" if format.minimum else "-table" if format.table else ""
    return CODES[f"int{format.bits}{kind}"], PATTERNS[format.pattern], format.group_size
