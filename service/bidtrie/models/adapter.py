"""A LoRA adapter in peft's format: a checkpoint that is another one plus low-rank changes.

    adapter_config.json         base_model_name_or_path, r, lora_alpha, and what changes the weights otherwise
    adapter_model.safetensors   base_model.model.LINEAR.lora_A.weight [r, in] and ….lora_B.weight [out, r]
    bidtrie_tune.json           optional: the base's content hash, and settings for serving (see ServingDefaults)

It is merged when it is loaded: W + lora_alpha / r * B A, in float32. Nothing is trusted: ModelError names what is
wrong.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import AnyTensor, Checkpoint
from bidtrie.models.fields import Fields, printable
from bidtrie.models.model_folder import ModelFolder
from bidtrie.models.safetensors_file import FLOAT_TYPES, SafetensorsEntry
from bidtrie.models.serving_defaults import SERVING
from bidtrie.models.tensor import Tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TUNE_RECORD = "bidtrie_tune.json"

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
#: Keys of peft's that change what an adapter means; only these values are read.
_EXPECTED = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
}
_MAX_RANK = 4096


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter rather than a model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def read_adapter(path: Path, name: str, load_base: Callable[[str], Checkpoint]) -> Checkpoint:
    """The base checkpoint with the adapter of a folder merged. `load_base` takes what the adapter calls its base."""
    folder = ModelFolder(path)
    fields = Fields(str(path / ADAPTER_CONFIG), folder.json(ADAPTER_CONFIG))
    for key, expected in _EXPECTED.items():
        if fields.values.get(key, expected) != expected:
            raise ModelError(f"{fields.source}: {key} is {fields.values[key]!r}, expected {expected!r}")
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication"):
        if fields.values.get(key):
            raise ModelError(f"{fields.source}: {key} is set, expected one rank for all and nothing besides")
    rank, alpha = fields.integer("r"), fields.number("lora_alpha")
    if not 1 <= rank <= _MAX_RANK:
        raise ModelError(f"{fields.source}: r is {rank}, expected 1 to {_MAX_RANK}")
    entries = folder.safetensors(ADAPTER_WEIGHTS)
    record = Fields(str(path / TUNE_RECORD), folder.json(TUNE_RECORD) if folder.has(TUNE_RECORD) else {})
    base = load_base(fields.text("base_model_name_or_path"))
    if (wanted := record.text("base_content_hash", "")) and wanted != base.content_hash:
        raise ModelError(
            f"{path}: was tuned from a model of the content hash {printable(wanted)}, "
            f"{base.name} has {base.content_hash}"
        )
    tensors = dict(base.tensors)
    for weight, pair in _pairs(path, entries).items():
        tensors[weight] = _merged(path, weight, base.tensors.get(weight), pair, rank, alpha / rank)
    both = hashlib.blake2b(f"{base.content_hash} {folder.content_hash}".encode(), digest_size=8)
    config = base.huggingface_config
    if config is not None and SERVING in record:
        config = {**config, SERVING: record.values[SERVING]}
    return replace(
        base,
        name=name,
        tensors=tensors,
        content_hash=both.hexdigest(),
        huggingface_config=config,
        compression=None,
    )


def _pairs(
    path: Path, entries: dict[str, SafetensorsEntry]
) -> dict[str, tuple[SafetensorsEntry, SafetensorsEntry]]:
    """A and B by the name of the weight that they change."""
    pairs = {}
    for key in entries:
        end = next((end for end in (_A, _B) if key.endswith(end)), None)
        if end is None or not key.startswith(_PREFIX):
            raise ModelError(
                f"{path / ADAPTER_WEIGHTS}: tensor {printable(key)} is not part of a LoRA adapter"
            )
        stem = key.removesuffix(end)
        if stem + _A not in entries or stem + _B not in entries:
            raise ModelError(f"{path / ADAPTER_WEIGHTS}: {printable(stem)} has no A or no B")
        pairs[f"{stem.removeprefix(_PREFIX)}.weight"] = entries[stem + _A], entries[stem + _B]
    if not pairs:
        raise ModelError(f"{path / ADAPTER_WEIGHTS}: holds no tensor")
    return pairs


def _merged(
    path: Path,
    weight: str,
    base: AnyTensor | None,
    pair: tuple[SafetensorsEntry, SafetensorsEntry],
    rank: int,
    scale: float,
) -> Tensor:
    where = f"{path / ADAPTER_WEIGHTS}: {printable(weight)}"
    if base is None or len(base.shape) != 2:
        raise ModelError(f"{where}: is not a matrix of the base model")
    a, b = (_values(where, entry) for entry in pair)
    if a.shape != (rank, base.shape[1]) or b.shape != (base.shape[0], rank):
        raise ModelError(
            f"{where}: A is {list(a.shape)} and B {list(b.shape)}, expected [{rank}, {base.shape[1]}] and "
            f"[{base.shape[0]}, {rank}]"
        )
    merged = base.dequantize() + np.float32(scale) * (b @ a)
    if not np.isfinite(merged).all():
        raise ModelError(f"{where}: holds values that are not finite")
    return Tensor("float32", base.shape, merged)


def _values(where: str, entry: SafetensorsEntry) -> NDArray[np.float32]:
    if entry.dtype not in FLOAT_TYPES:
        raise ModelError(f"{where}: has the type {entry.dtype}, expected one of {', '.join(FLOAT_TYPES)}")
    return np.asarray(entry.to_float32())
