"""Random matrices in every format of the GPU's kernels, and what they mean in float64."""

import numpy as np
import torch
from bidtrie.models.group_tensor import GroupFormat, GroupTensor


def random_matrix(format: GroupFormat, rows: int, cols: int, seed: int) -> GroupTensor:
    """Codes, scales and positions drawn at random; scales so that weights are of the size of a model's."""
    draw = np.random.default_rng(seed)
    kept = format.kept(cols)
    scales = (draw.uniform(0.032, 0.16, (rows, format.groups(cols))) / 2**format.bits).astype(np.float16)
    minimums = table = positions = None
    if format.minimum:
        minimums = draw.uniform(-0.08, -0.01, scales.shape).astype(np.float16)
    if format.table:
        table = np.sort(draw.choice(np.arange(-32, 33), 16, replace=False)).astype(np.int8)
    if format.pattern == "2:4":
        pairs = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], np.uint8)
        positions = _four_a_byte(pairs[draw.integers(0, 6, (rows, cols // 4))].reshape(rows, kept))
    elif format.pattern == "1:4":
        positions = _four_a_byte(draw.integers(0, 4, (rows, kept), np.uint8))
    codes = draw.integers(0, 256, (rows, kept * format.bits // 8), np.uint8)
    return GroupTensor(format, (rows, cols), codes, scales, minimums, table, positions)


def _four_a_byte(positions: np.ndarray) -> np.ndarray:
    parts = positions.reshape(len(positions), -1, 4)
    return (parts[..., 0] | parts[..., 1] << 2 | parts[..., 2] << 4 | parts[..., 3] << 6).astype(np.uint8)


def dense(tensor: GroupTensor, device: torch.device) -> torch.Tensor:
    """The matrix in float64 [rows, cols]."""
    return torch.from_numpy(tensor.dequantize()).to(device, torch.float64)


def magnitudes(tensor: GroupTensor, device: torch.device) -> torch.Tensor:
    """Sizes of the terms that a kernel adds up, float64 [rows, cols]: |scale * code| + |minimum|, else |weight|."""
    weights = dense(tensor, device)
    if tensor.minimums is None:
        return weights.abs()
    lowest = torch.from_numpy(tensor.minimums.astype(np.float64)).to(device)
    lowest = lowest.repeat_interleave(tensor.format.group_size, 1)[:, : tensor.shape[1]]
    return (weights - lowest).abs() + lowest.abs()
