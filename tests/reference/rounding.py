"""How the native engine rounds what its quantized linears read, and what it stores of keys and values."""

import numpy as np
from reference.llama import Float64

BLOCK = 32


def round_to_int8(x: Float64) -> Float64:
    """Signed 8-bit codes in blocks of 32 of the last axis, scale = largest magnitude / 127, nearest even; and back.

    The last block may be short.
    """
    padding = -x.shape[-1] % BLOCK
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padding)])
    blocks = padded.reshape(*x.shape[:-1], -1, BLOCK)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale)
    return (np.rint(blocks / scale) * scale).reshape(padded.shape)[..., : x.shape[-1]]


def round_to_half(x: Float64) -> Float64:
    """float16, nearest even, and back."""
    return x.astype(np.float16).astype(np.float64)
