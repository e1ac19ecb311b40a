"""A compressed linear whose numbers can be trained: codes follow weights that stay in float32.

The weight that is computed with is always one that the format can store. Gradients pass the rounding as if it were not
there (straight-through, Bengio et al., 2013, arXiv:1308.3432); those of the scales are then the ones of LSQ (Esser et
al., 2019, arXiv:1902.08153). Which weights of a four are kept stays as it is.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidtrie.compress.codes import Codes, code_units, nearest_codes, pack_codes
from bidtrie.compress.scales import Scales
from bidtrie.models.group_tensor import POSITION_SHIFTS, GroupTensor

#: How near to the dense model's weights the trained ones begin, of those that still give the solver's codes.
_TRIED = (1.0, 0.75, 0.5, 0.25)


class TrainableLinear:
    """latent: float32 [rows, cols]; scales and minimums: float32 [rows, groups]; all of them to be trained."""

    def __init__(self, tensor: GroupTensor, dense: NDArray[np.float32]) -> None:
        """dense: what `tensor` stands for."""
        self._start = tensor
        self._units = torch.from_numpy(code_units(tensor.format, tensor.table)).float()
        self._sorted = self._units.sort().values
        mask = kept_weights(tensor)
        self._mask = None if mask is None else torch.from_numpy(mask).float()
        self.latent = torch.from_numpy(_latent(tensor, dense, mask)).requires_grad_()
        self.scales = torch.from_numpy(tensor.scales.astype(np.float32)).requires_grad_()
        self.minimums: Tensor | None = None
        if tensor.minimums is not None:
            self.minimums = torch.from_numpy(tensor.minimums.astype(np.float32)).requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        named = {"latent": self.latent, "scales": self.scales}
        return named if self.minimums is None else {**named, "minimums": self.minimums}

    def weight(self) -> Tensor:
        """The stored weight, float32 [rows, cols], with gradients."""
        scale = self._per_weight(self.scales)
        low = None if self.minimums is None else self._per_weight(self.minimums)
        divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
        units = (self.latent if low is None else self.latent - low) / divisor
        least, most = float(self._sorted[0]), float(self._sorted[-1])
        inside = units.clamp(least, most)
        if self._start.table is None:
            nearest = inside.detach().round()
        else:
            middles = (self._sorted[1:] + self._sorted[:-1]) / 2
            nearest = self._sorted[torch.bucketize(inside.detach(), middles)]
        values = (inside + (nearest - inside.detach())) * scale
        if low is not None:
            values = values + low
        return values if self._mask is None else values * self._mask

    def tensor(self) -> GroupTensor:
        """The stored weight as it goes into the artefact."""
        start = self._start
        rows, cols = start.shape
        numbers = Scales(
            self.scales.detach().numpy().astype(np.float16),
            None if self.minimums is None else self.minimums.detach().numpy().astype(np.float16),
            start.table,
        )
        scale, low = numbers.columns(start.format, cols)
        codes: Codes = nearest_codes(self.latent.detach().numpy(), scale, low, start.format, start.table)
        if self._mask is not None:
            codes = codes[self._mask.numpy() > 0].reshape(rows, -1)
        return GroupTensor(
            start.format,
            start.shape,
            pack_codes(codes, start.format.bits),
            numbers.scales,
            numbers.minimums,
            start.table,
            start.positions,
        )

    def _per_weight(self, numbers: Tensor) -> Tensor:
        """A group's number, rounded to float16, for each of its columns."""
        rounded = numbers + (numbers.detach().half().float() - numbers.detach())
        return rounded.repeat_interleave(self._start.format.group_size, dim=1)[:, : self._start.shape[1]]


def kept_weights(tensor: GroupTensor) -> NDArray[np.bool_] | None:
    """bool [rows, cols]: which weights a sparse format stores; None of a dense one."""
    if tensor.positions is None:
        return None
    rows, cols = tensor.shape
    places = (tensor.positions[..., None] >> POSITION_SHIFTS & 3).reshape(rows, cols // 4, -1)
    kept = np.zeros((rows, cols // 4, 4), np.bool_)
    np.put_along_axis(kept, places.astype(np.intp), True, axis=2)
    return kept.reshape(rows, cols)


def _latent(
    tensor: GroupTensor, dense: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Weights whose nearest codes are the tensor's: near the dense ones as far as that goes, else the stored ones."""
    stored = tensor.dequantize()
    scale, low = Scales(tensor.scales, tensor.minimums, tensor.table).columns(tensor.format, tensor.shape[1])

    def codes(values: NDArray[np.float32]) -> Codes:
        return nearest_codes(values, scale, low, tensor.format, tensor.table)

    exact, latent = codes(stored), stored.copy()
    found = np.zeros(stored.shape, np.bool_)
    for share in _TRIED:
        tried = (stored + np.float32(share) * (dense - stored)).astype(np.float32)
        fits = ~found & (codes(tried) == exact)
        latent[fits] = tried[fits]
        found |= fits
    if mask is not None:
        latent[~mask] = 0
    return latent
