"""Compresses the linears of a checkpoint, one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.round_to_nearest import quantize
from bidtrie.errors import ModelError
from bidtrie.models.artefact_writer import write_artefact
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.compression_record import CompressionRecord, LinearRecord
from bidtrie.models.config import ModelConfig
from bidtrie.models.group_tensor import COLUMN_MULTIPLE, GroupFormat, GroupTensor, row_chunks
from bidtrie.models.layout import is_head, linear_shapes


@dataclass(frozen=True, slots=True)
class CompressedLinear:
    """A linear by its module's name, and how well it came out."""

    name: str
    tensor: GroupTensor
    record: LinearRecord


def choose_formats(
    config: ModelConfig, layers: GroupFormat, head: GroupFormat
) -> tuple[dict[str, GroupFormat], list[str]]:
    """One format for the linears of all layers, another for embedding and head.

    The second value names the linears whose rows are not a multiple of 16 columns: no format fits them. Raises
    ModelError if that is all of them.
    """
    formats, left_out = {}, []
    for name, (_, cols) in linear_shapes(config).items():
        if cols % COLUMN_MULTIPLE:
            left_out.append(name)
        else:
            formats[name] = head if is_head(name) else layers
    if not formats:
        raise ModelError(
            f"no linear has rows of a multiple of {COLUMN_MULTIPLE} columns: nothing to compress"
        )
    return formats, left_out


def compress(checkpoint: Checkpoint, formats: Mapping[str, GroupFormat]) -> Iterator[CompressedLinear]:
    """Round each linear that `formats` names to the nearest, in that order.

    The reference is what the checkpoint holds: the weights of quantized files as they dequantize. Raises ModelError
    naming a tensor that cannot be compressed.
    """
    for name, format in formats.items():
        weight = checkpoint.tensors[f"{name}.weight"].dequantize()
        tensor = quantize(weight, format, name=f"{name}.weight")
        record = LinearRecord(
            format=format.name,
            bits_per_weight=tensor.bits_per_weight,
            relative_error=relative_error(weight, tensor.dequantize()),
        )
        yield CompressedLinear(name, tensor, record)


def write_compressed(
    out: Path,
    checkpoint: Checkpoint,
    linears: Sequence[CompressedLinear],
    method: str,
    options: Mapping[str, Any],
    allocation: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write the artefact of a checkpoint and its compressed linears, with the record of how they came about.

    allocation: see CompressionRecord.
    """
    record = CompressionRecord(
        method=method,
        options=options,
        reference_name=checkpoint.name,
        reference_hash=checkpoint.content_hash,
        linears={linear.name: linear.record for linear in linears},
        allocation=allocation,
    )
    return write_artefact(out, checkpoint, {linear.name: linear.tensor for linear in linears}, record)


def relative_error(weight: NDArray[np.float32], approximation: NDArray[np.float32]) -> float:
    """||weight - approximation|| / ||weight|| in the Frobenius norm, in float64; 0 if the weight is 0."""
    error = norm = 0.0
    for part in row_chunks(*weight.shape):
        exact = weight[part].astype(np.float64)
        error += float(np.square(exact - approximation[part]).sum())
        norm += float(np.square(exact).sum())
    return (error / norm) ** 0.5 if norm else 0.0
