"""Tiny models as folders, as vLLM reads them."""

from collections.abc import Callable
from pathlib import Path

from bidtrie.compress.compressor import compress
from bidtrie.models.artefact_writer import write_artefact
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.layout import linear_shapes
from bidtrie.models.load import load_checkpoint
from reference.tiny_models import GROUP_FORMATS, save_tiny_model

#: Formats whose parts of o_proj and down_proj can be cut in two: groups of 16 and 32 columns of 64 and 96.
HALVED_FORMATS = GROUP_FORMATS | {"down_proj": GroupFormat(4, 16, minimum=True)}

_LEFT_PLAIN = ("k_proj", "up_proj", "embed_tokens")


def plain(kind: str) -> Callable[[Path], Checkpoint]:
    """Writes a tiny model of `reference.tiny_models.KINDS`."""

    def write(folder: Path) -> Checkpoint:
        save_tiny_model(kind, folder)
        return load_checkpoint(folder)

    return write


def in_formats(kind: str, formats: dict[str, GroupFormat]) -> Callable[[Path], Checkpoint]:
    """Writes it as an artefact, each linear in the format of its name; names that are missing stay float32."""

    def write(folder: Path) -> Checkpoint:
        source = plain(kind)(folder.with_name(f"{folder.name}-plain"))
        chosen = {
            name: formats[name.split(".")[-1]]
            for name in linear_shapes(source.config)
            if name.split(".")[-1] in formats
        }
        linears = list(compress(source, chosen))
        record = CompressionRecord(
            method="rtn",
            options={},
            reference_name=source.name,
            reference_hash=source.content_hash,
            linears={linear.name: linear.record for linear in linears},
        )
        return write_artefact(folder, source, {linear.name: linear.tensor for linear in linears}, record)

    return write


#: Folders that between them have every feature that vLLM must compute as we mean it.
FOLDERS: dict[str, Callable[[Path], Checkpoint]] = {
    "llama": plain("llama"),
    "llama-llama3-rope": plain("llama-llama3-rope"),
    "mistral": plain("mistral"),
    "qwen2": plain("qwen2"),
    "qwen3": plain("qwen3"),
    "groups": in_formats("llama", GROUP_FORMATS),
    # The head is the embedding.
    "groups-tied": in_formats("llama-tied", GROUP_FORMATS),
    # One part of each merged layer is left as it was, and so is the embedding.
    "groups-mixed": in_formats(
        "llama", {name: format for name, format in GROUP_FORMATS.items() if name not in _LEFT_PLAIN}
    ),
    "groups-halved": in_formats("llama", HALVED_FORMATS),
}
