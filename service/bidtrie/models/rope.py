"""Inverse frequencies of rotary position embeddings, with every scaling of the Llama family folded in.

The formulas are those of transformers' `modeling_rope_utils`: linear interpolation, dynamic NTK (at the original
length, where it changes nothing), Llama 3.1's bands, and YaRN (Peng et al., 2023, arXiv:2309.00071).
"""

import math

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields

Float64 = NDArray[np.float64]

#: What stands in for a missing `rope_theta`.
DEFAULT_THETA = 10_000.0


def inverse_frequencies(
    rope: Fields, head_dim: int, context_length: int
) -> tuple[NDArray[np.float32], float]:
    """float32 [head_dim / 2] radians a position, and the factor on cosines and sines.

    `rope` holds `rope_type` (or `type`), `rope_theta` and the type's own keys, as in a Hugging Face `config.json`.
    `context_length` stands in for a missing `original_max_position_embeddings`. Raises ModelError.
    """
    kind = rope.text("rope_type" if "rope_type" in rope else "type", "default")
    if rope.number("partial_rotary_factor", 1.0) != 1:
        raise ModelError(f"{rope.source}: partial_rotary_factor is set: partial rotation is not supported")
    theta = rope.positive("rope_theta", DEFAULT_THETA)
    with np.errstate(over="ignore", divide="ignore"):
        base: Float64 = theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        if kind in ("default", "dynamic"):
            scaled, factor = base, 1.0
        elif kind == "linear":
            scaled, factor = base / rope.positive("factor"), 1.0
        elif kind == "llama3":
            scaled, factor = _llama3(rope, base, context_length), 1.0
        elif kind == "yarn":
            scaled, factor = _yarn(rope, base, theta, head_dim, context_length)
        else:
            raise ModelError(
                f"{rope.source}: rope_type {kind!r} is unknown, expected default, linear, dynamic, llama3 or yarn"
            )
        return scaled.astype(np.float32), factor


def _llama3(rope: Fields, base: Float64, context_length: int) -> Float64:
    """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
    factor, low, high = (
        rope.positive("factor"),
        rope.positive("low_freq_factor"),
        rope.positive("high_freq_factor"),
    )
    original = rope.positive("original_max_position_embeddings", context_length)
    if high <= low:
        raise ModelError(
            f"{rope.source}: high_freq_factor is {high:g}, expected more than low_freq_factor ({low:g})"
        )
    turns = original * base / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - smooth) * base / factor + smooth * base


def _yarn(
    rope: Fields, base: Float64, theta: float, head_dim: int, context_length: int
) -> tuple[Float64, float]:
    """Dimensions that turn often within the original length are kept, those that turn seldom interpolated."""
    original = rope.positive("original_max_position_embeddings", context_length)
    factor = rope.positive("factor") if "factor" in rope else context_length / original
    if theta <= 1:
        raise ModelError(f"{rope.source}: rope_theta is {theta:g}, expected more than 1 for yarn")

    def dimension(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = dimension(_unless_zero(rope, "beta_fast", 32.0))
    high = dimension(_unless_zero(rope, "beta_slow", 1.0))
    if rope.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(head_dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)
    return base / factor * ramp + base * (1 - ramp), _yarn_attention_factor(rope, factor)


def _unless_zero(rope: Fields, key: str, default: float) -> float:
    """A positive number; zero means "unset", as it does to transformers."""
    return rope.positive(key) if rope.number(key, 0.0) else default


def _yarn_attention_factor(rope: Fields, factor: float) -> float:
    if "attention_factor" in rope:
        return rope.number("attention_factor")

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1

    mscale, all_dim = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    if mscale and all_dim:
        return scale(mscale) / scale(all_dim)
    return scale(1.0)
