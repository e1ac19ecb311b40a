"""How the native engine's quantized linears see their inputs."""

import numpy as np
from reference.llama import Float64

GROUP = 32


def round_to_int8(x: Float64) -> Float64:
    """Signed 8-bit codes in groups of 32 of the last axis, scale = largest magnitude / 127, nearest even; and back."""
    groups = x.reshape(*x.shape[:-1], -1, GROUP)
    scale = np.abs(groups).max(axis=-1, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale)
    return (np.rint(groups / scale) * scale).reshape(x.shape)
