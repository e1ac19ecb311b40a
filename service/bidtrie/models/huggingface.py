"""A checkpoint out of a Hugging Face directory: config.json, safetensors and tokenizer.json."""

from pathlib import Path

from bidtrie.errors import ModelError
from bidtrie.models.artefact import QUANTIZATION, read_formats, read_record, take_group_tensors
from bidtrie.models.checkpoint import AnyTensor, Checkpoint
from bidtrie.models.fields import Fields, printable
from bidtrie.models.huggingface_config import CONFIG, read_architecture, read_biases, read_config
from bidtrie.models.huggingface_tokenizer import TOKENIZER, read_tokenizer
from bidtrie.models.layout import HEAD, check_shapes, check_values
from bidtrie.models.model_folder import ModelFolder
from bidtrie.models.safetensors_file import FLOAT_TYPES, SafetensorsEntry
from bidtrie.models.tensor import Tensor

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_SHARDS = 1000
#: Buffers that old checkpoints store though they follow from the configuration.
_DERIVED = ".rotary_emb.inv_freq"


def read_huggingface_checkpoint(path: Path, name: str) -> Checkpoint:
    """Read a directory of the Llama family. Raises ModelError naming the file and what is wrong in it."""
    folder = ModelFolder(path)
    fields = Fields(str(path / CONFIG), folder.json(CONFIG))
    architecture = read_architecture(fields)
    formats = read_formats(fields)
    entries = _entries(folder)
    tokenizer = read_tokenizer(folder, fields)
    compression = None if formats is None else read_record(folder, formats)
    config = read_config(fields, architecture, tokenizer)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"{path / TOKENIZER}: has {tokenizer.vocab_size} tokens, the model's vocabulary {config.vocab_size}"
        )
    if config.tie_word_embeddings:
        entries.pop(HEAD, None)
    compressed = take_group_tensors(str(path), config, formats or {}, entries)
    shapes: dict[str, tuple[int, ...]] = {key: entry.shape for key, entry in entries.items()}
    shapes |= {key: tensor.shape for key, tensor in compressed.items()}
    check_shapes(str(path), config, shapes, read_biases(fields, config))
    tensors: dict[str, AnyTensor] = {key: _float(path, key, entry) for key, entry in entries.items()}
    tensors |= compressed
    check_values(str(path), tensors)
    return Checkpoint(
        name=name,
        config=config,
        content_hash=folder.content_hash,
        tensors=tensors,
        tokenizer=tokenizer,
        licence=fields.text("license", "") or None,
        huggingface_config={key: value for key, value in fields.values.items() if key != QUANTIZATION},
        compression=compression,
    )


def _float(path: Path, name: str, entry: SafetensorsEntry) -> Tensor:
    if entry.dtype not in FLOAT_TYPES:
        raise ModelError(
            f"{path}: tensor {name} has the type {entry.dtype}, expected one of {', '.join(FLOAT_TYPES)}"
        )
    return Tensor("float32", entry.shape, entry.to_float32())


def _entries(folder: ModelFolder) -> dict[str, SafetensorsEntry]:
    """All tensors of the single file, or of the shards that the index names."""
    path = folder.path
    if folder.has(WEIGHTS):
        shards: dict[str, list[str]] = {WEIGHTS: []}
    elif folder.has(_INDEX):
        shards = _shards(folder)
    else:
        raise ModelError(
            f"{path}: holds neither {WEIGHTS} nor {_INDEX} (weights are read from safetensors only)"
        )
    entries: dict[str, SafetensorsEntry] = {}
    for file, wanted in shards.items():
        if not folder.has(file):
            raise ModelError(f"{path / file}: is missing, {_INDEX} names it")
        found = folder.safetensors(file)
        for name in wanted:
            if name not in found:
                raise ModelError(
                    f"{path / file}: tensor {printable(name)} is missing, {_INDEX} says that it is there"
                )
        for name, entry in found.items():
            if name in entries:
                raise ModelError(f"{path / file}: tensor {printable(name)} is in another shard, too")
            entries[name] = entry
    return {name: entry for name, entry in entries.items() if not name.endswith(_DERIVED)}


def _shards(folder: ModelFolder) -> dict[str, list[str]]:
    """The tensors of each shard. Shards are files of the same folder: a path in the index is an error."""
    index = folder.path / _INDEX
    weight_map = Fields(str(index), folder.json(_INDEX)).section("weight_map").values
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if (
            not isinstance(file, str)
            or not file.endswith(".safetensors")
            or Path(file).name != file
            or "\0" in file
        ):
            raise ModelError(
                f"{index}: tensor {printable(name)} is said to be in {file!r:.80}, expected a .safetensors file's name"
            )
        shards.setdefault(file, []).append(name)
    if not 1 <= len(shards) <= _MAX_SHARDS:
        raise ModelError(f"{index}: names {len(shards)} shards, expected 1 to {_MAX_SHARDS}")
    return dict(sorted(shards.items()))
