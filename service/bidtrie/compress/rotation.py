"""An orthogonal rotation of the residual stream, folded into the weights: the same function, other weights.

The idea of QuaRot (Ashkboos et al., 2024, arXiv:2404.00456), with a dense random matrix in place of a Hadamard one, so
that every width will do. The norms' gains are folded into the linears behind them first: an RMS norm without gains
commutes with rotations. Weights that lie on a grid (those of a quantized file) leave it, and outlying channels of the
stream are spread over all of them.
"""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import InvalidInput
from bidtrie.models.checkpoint import AnyTensor, Checkpoint
from bidtrie.models.group_tensor import row_chunks
from bidtrie.models.layout import EMBEDDING, FINAL_NORM, HEAD
from bidtrie.models.tensor import Tensor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Linears of a layer that read the stream, by the norm before them, and those that write to it.
_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_WRITERS = ("self_attn.o_proj", "mlp.down_proj")


def random_rotation(size: int, seed: int) -> Float64:
    """A random orthogonal matrix, float64 [size, size], the same for a seed on every machine up to rounding.

    The Q of a Gaussian's QR decomposition, columns turned so that R's diagonal is positive: then it is uniform over
    all orthogonal matrices (Mezzadri, 2007, arXiv:math-ph/0609050).
    """
    gaussian = np.random.default_rng(seed).standard_normal((size, size))
    orthogonal, upper = np.linalg.qr(gaussian)
    signs = np.where(np.diag(upper) < 0, -1.0, 1.0)
    rotation: Float64 = orthogonal * signs
    return rotation


def rotate(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """The checkpoint with its residual stream rotated by `random_rotation(hidden size, seed)`, in float32.

    Gains of the layers' and the final norm become 1, and a head that is tied to the embedding becomes one of its own:
    only the head takes the final norm's gain. Raises InvalidInput for a negative seed.
    """
    if seed < 0:
        raise InvalidInput.of("--rotate", f"{seed}, expected a seed of 0 or more")
    config = checkpoint.config
    rotation = random_rotation(config.hidden_size, seed)
    tensors = dict(checkpoint.tensors)
    if config.tie_word_embeddings:
        tensors[HEAD] = tensors[EMBEDDING]

    def gain(norm: str) -> Float64:
        values = tensors[norm].dequantize().astype(np.float64)
        tensors[norm] = _tensor(np.ones(values.shape, np.float32))
        return values

    def read(linear: str, gains: Float64) -> None:
        tensors[linear] = _tensor(_times(tensors[linear], gains[:, None] * rotation))

    def write(linear: str) -> None:
        # A transposed product: rows of the weight are what is rotated.
        weight = tensors[f"{linear}.weight"].dequantize().astype(np.float64)
        tensors[f"{linear}.weight"] = _tensor((rotation.T @ weight).astype(np.float32))
        if (bias := tensors.get(f"{linear}.bias")) is not None:
            values = bias.dequantize().astype(np.float64)
            tensors[f"{linear}.bias"] = _tensor((rotation.T @ values).astype(np.float32))

    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        for norm, linears in _READERS.items():
            gains = gain(f"{prefix}.{norm}.weight")
            for linear in linears:
                read(f"{prefix}.{linear}.weight", gains)
        for linear in _WRITERS:
            write(f"{prefix}.{linear}")
    read(EMBEDDING, np.ones(config.hidden_size))
    read(HEAD, gain(FINAL_NORM))
    described = checkpoint.huggingface_config
    return replace(
        checkpoint,
        name=f"{checkpoint.name}-rotated-{seed}",
        config=replace(config, tie_word_embeddings=False),
        content_hash=hashlib.sha256(f"{checkpoint.content_hash} rotated {seed}".encode()).hexdigest()[:16],
        tensors=tensors,
        huggingface_config=None if described is None else {**described, "tie_word_embeddings": False},
    )


def _times(tensor: AnyTensor, factor: Float64) -> Float32:
    """weight @ factor, computed in float64 some rows at a time: an embedding is large."""
    weight = tensor.dequantize()
    product = np.empty_like(weight)
    for part in row_chunks(*weight.shape):
        product[part] = weight[part].astype(np.float64) @ factor
    return product


def _tensor(values: Float32) -> Tensor:
    return Tensor("float32", values.shape, values)
