"""Checks at the boundary: what a kernel gets has the shape, type and place that it takes for granted."""

from collections.abc import Sequence

import torch

from bidtrie.errors import EngineError

#: How kernels number the types of activations.
FLOATS = {torch.float16: 0, torch.bfloat16: 1}


def expect(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | None],
    types: Sequence[torch.dtype],
    device: torch.device,
) -> None:
    """Raise EngineError unless the tensor has the shape (None: any size), one of the types, and lies on the device.

    The last dimension must be contiguous.
    """
    fits = tensor.dim() == len(shape) and all(
        wanted is None or size == wanted for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted_shape = ", ".join("any" if size is None else str(size) for size in shape)
        raise EngineError(f"{name} has the shape {list(tensor.shape)}, expected [{wanted_shape}]")
    if tensor.dtype not in types:
        raise EngineError(f"{name} is {tensor.dtype}, expected {' or '.join(map(str, types))}")
    if tensor.device != device:
        raise EngineError(f"{name} is on {tensor.device}, expected {device}")
    if tensor.numel() and tensor.stride(-1) != 1:
        raise EngineError(f"{name} has a stride of {tensor.stride(-1)} in its last dimension, expected 1")


def expect_aligned(name: str, tensor: torch.Tensor, stride: int | None = None) -> None:
    """Raise EngineError unless the data and its rows begin at multiples of 16 bytes."""
    if tensor.data_ptr() % 16 or (stride is not None and stride * tensor.element_size() % 16):
        raise EngineError(f"{name} is not aligned: data and rows must begin at multiples of 16 bytes")


def stream(device: torch.device) -> int:
    """The address of the device's current stream."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors the device has."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
