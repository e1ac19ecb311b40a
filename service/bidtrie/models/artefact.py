"""A compressed model: a Hugging Face directory whose linears are GroupTensors.

config.json names the format of each compressed linear:

    "quantization_config": {"quant_method": "bidtrie", "format_version": 1,
                            "linears": {"model.layers.0.self_attn.q_proj": {"bits": 4, "group_size": 32, ...}, ...}}

The safetensors hold a linear's arrays as `LINEAR.weight_packed` and the like (see `PARTS`), everything else as a plain
checkpoint does. compression.json says how the model was compressed (see CompressionRecord), and the SHA-256 of every
other file of the model. Nothing is trusted: each function here raises ModelError naming what is wrong.
"""

from collections.abc import Mapping

from bidtrie.errors import ModelError
from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.config import ModelConfig
from bidtrie.models.fields import Fields, printable
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import COLUMN_MULTIPLE, GroupTensor, part_layout
from bidtrie.models.layout import linear_shapes
from bidtrie.models.model_folder import ModelFolder
from bidtrie.models.safetensors_file import SafetensorsEntry

RECORD = "compression.json"
QUANTIZATION = "quantization_config"
QUANT_METHOD = "bidtrie"
FORMAT_VERSION = 1
#: How the arrays of a GroupTensor are called in the safetensors, after the linear's name and a dot.
PARTS = {
    "codes": "weight_packed",
    "scales": "weight_scale",
    "minimums": "weight_min",
    "table": "weight_table",
    "positions": "weight_positions",
}
_TYPES = {"uint8": "U8", "int8": "I8", "float16": "F16"}


def read_formats(config: Fields) -> dict[str, GroupFormat] | None:
    """The format of each compressed linear that a config.json names; None if it is that of a plain checkpoint."""
    if QUANTIZATION not in config:
        return None
    quantization = config.section(QUANTIZATION)
    if quantization.values.get("quant_method") != QUANT_METHOD:
        raise ModelError(
            f"{config.source}: quantization_config is set: quantized checkpoints are read as GGUF only, "
            f"or with the quant_method {QUANT_METHOD!r}"
        )
    if (version := quantization.integer("format_version")) != FORMAT_VERSION:
        raise ModelError(
            f"{quantization.source}: format_version is {version}, expected {FORMAT_VERSION} "
            "(a newer bidtrie may have written it)"
        )
    quantization.expect_only("quant_method", "format_version", "linears")
    if "linears" not in quantization:
        raise ModelError(f"{quantization.source}: linears is missing, expected an object")
    linears = quantization.section("linears")
    return {name: GroupFormat.from_json(linears.section(name)) for name in linears.values}


def read_record(folder: ModelFolder, formats: Mapping[str, GroupFormat]) -> CompressionRecord:
    """compression.json, once every other file has been read: their hashes and formats must be those that it names."""
    hashes = folder.sha256()
    fields = Fields(str(folder.path / RECORD), folder.json(RECORD))
    fields.expect_only("bidtrie_version", "method", "options", "reference", "linears", "files", "allocation")
    files = fields.section("files")
    for name in files.values:
        if name not in hashes:
            raise ModelError(
                f"{folder.path}: the file {printable(name)} is missing or not read, {RECORD} names it"
            )
    for name, sha256 in hashes.items():
        if name not in files:
            raise ModelError(f"{folder.path / name}: is not part of the model, {RECORD} does not name it")
        if files.text(name) != sha256:
            raise ModelError(
                f"{folder.path / name}: its SHA-256 is not that in {RECORD}: damaged or changed, compress again"
            )
    record = CompressionRecord.from_json(fields)
    for name in sorted(formats.keys() | record.linears.keys()):
        here = str(formats[name]) if name in formats else "float32"
        there = record.linears[name].format if name in record.linears else "float32"
        if here != there:
            raise ModelError(
                f"{fields.source}: linears: {printable(name)} is {printable(there)}, config.json says {here}"
            )
    return record


def take_group_tensors(
    source: str,
    config: ModelConfig,
    formats: Mapping[str, GroupFormat],
    entries: dict[str, SafetensorsEntry],
) -> dict[str, GroupTensor]:
    """The compressed linears under their usual names, `LINEAR.weight`; their arrays leave `entries`.

    Arrays are views of the mapped file. Types, shapes, tables and positions are checked; scales are not.
    """
    shapes = linear_shapes(config)
    tensors: dict[str, GroupTensor] = {}
    for linear, format in formats.items():
        if (shape := shapes.get(linear)) is None:
            raise ModelError(
                f"{source}: {QUANTIZATION} names {printable(linear)}, which is not a linear of this model"
            )
        weight = f"{linear}.weight"
        if shape[1] % COLUMN_MULTIPLE:
            raise ModelError(
                f"{source}: tensor {weight} has rows of {shape[1]}, expected a multiple of {COLUMN_MULTIPLE} "
                f"for {format}"
            )
        if weight in entries:
            raise ModelError(f"{source}: tensor {weight} is there, expected it as {format} only")
        parts = {}
        for field, (dtype, part_shape) in part_layout(format, shape).items():
            name, expected = f"{linear}.{PARTS[field]}", f"{_TYPES[dtype.name]} {list(part_shape)}"
            entry = entries.pop(name, None)
            if entry is None:
                raise ModelError(f"{source}: tensor {name} is missing, expected {expected} for {format}")
            if (found := f"{entry.dtype} {list(entry.shape)}") != expected:
                raise ModelError(f"{source}: tensor {name} is {found}, expected {expected} for {format}")
            parts[field] = entry.values(dtype)
        tensor = GroupTensor(format, shape, **parts)
        if problem := tensor.problem():
            raise ModelError(f"{source}: tensor {weight}: {problem}")
        tensors[weight] = tensor
    return tensors
