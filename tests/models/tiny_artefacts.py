"""Tiny compressed models, and changes to their files that their hashes do not give away."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bidtrie.compress.compressor import choose_formats, compress
from bidtrie.models.artefact_writer import write_artefact
from bidtrie.models.checkpoint import Checkpoint, GroupTensor
from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.group_tensor import GroupFormat


def compressed(
    source: Checkpoint, layers: GroupFormat, head: GroupFormat
) -> tuple[dict[str, GroupTensor], CompressionRecord]:
    """The linears of a checkpoint, rounded to nearest, and the record of it."""
    linears = list(compress(source, choose_formats(source.config, layers, head)[0]))
    record = CompressionRecord(
        method="rtn",
        options={"format": layers.name},
        reference_name=source.name,
        reference_hash=source.content_hash,
        linears={linear.name: linear.record for linear in linears},
    )
    return {linear.name: linear.tensor for linear in linears}, record


def write_tiny_artefact(
    out: Path, source: Checkpoint, layers: GroupFormat, head: GroupFormat | None = None
) -> Checkpoint:
    """Compress a checkpoint into the folder `out`; `head` is the format of embedding and head, if another."""
    return write_artefact(out, source, *compressed(source, layers, head or layers))


def sign(folder: Path, **changes: Any) -> None:
    """Write the hashes of the files as they are now into compression.json, and set keys of it."""
    path = folder / "compression.json"
    record = json.loads(path.read_text())
    record["files"] = {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir() if each != path
    }
    path.write_text(json.dumps(record | changes))
