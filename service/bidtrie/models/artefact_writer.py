"""Writes an artefact (see `artefact.py`): whole, or not at all."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from bidtrie.errors import ModelError
from bidtrie.models.artefact import FORMAT_VERSION, PARTS, QUANT_METHOD, QUANTIZATION, RECORD
from bidtrie.models.checkpoint import Checkpoint, GroupTensor
from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.config import ModelConfig
from bidtrie.models.huggingface import WEIGHTS, read_huggingface_checkpoint
from bidtrie.models.huggingface_config import CONFIG
from bidtrie.models.huggingface_tokenizer import CHAT_TEMPLATE, GENERATION, SETTINGS, TOKENIZER, UNUSED_IDS
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.models.verify import sha256_of


def check_writable(checkpoint: Checkpoint, out: Path) -> None:
    """Raise ModelError if this checkpoint could not be written to `out`: better known before hours of work."""
    if checkpoint.huggingface_config is None:
        raise ModelError(
            f"{checkpoint.name}: its rotary frequencies cannot be said in a Hugging Face config.json; "
            "compress the model's Hugging Face directory instead"
        )
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise ModelError(f"{out}: is there already, expected a new or empty folder")
        if not out.resolve().parent.is_dir():
            raise ModelError(f"{out.resolve().parent}: no such folder")
    except OSError as error:
        raise ModelError(f"{out}: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{str(out)!r}: is not a path: {error}") from None


def write_artefact(
    out: Path, checkpoint: Checkpoint, linears: Mapping[str, GroupTensor], record: CompressionRecord
) -> Checkpoint:
    """Write `checkpoint` to the folder `out`, new or empty, and return the artefact as it reads back.

    `linears`: what stands for the weights of some modules, by module name; all other tensors are written in float32.
    Everything is written to a folder beside `out`, read back, compared with `checkpoint`, and renamed. Raises
    ModelError; after any failure or interrupt, nothing is left.
    """
    return _write(out, checkpoint, linears, record)


def write_checkpoint(out: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Write `checkpoint` as a plain Hugging Face directory in float32, new or empty, as `write_artefact` does."""
    return _write(out, checkpoint, {}, None)


def _write(
    out: Path, checkpoint: Checkpoint, linears: Mapping[str, GroupTensor], record: CompressionRecord | None
) -> Checkpoint:
    check_writable(checkpoint, out)
    with whole_folder(out) as fresh:
        _write_files(fresh, checkpoint, linears, record)
        artefact = read_huggingface_checkpoint(fresh, out.resolve().name)
        _check_same(artefact, checkpoint)
    return artefact


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write files to, which becomes `out` at the end, synced to the disk.

    Raises ModelError where it cannot be written; after any failure or interrupt, nothing is left.
    """
    target = out.resolve()
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        try:
            fresh.mkdir()
            yield fresh
            for path in [*fresh.rglob("*"), fresh]:
                _sync(path)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, SafetensorError, UnicodeEncodeError) as error:
        raise ModelError(f"{out}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _write_files(
    folder: Path,
    checkpoint: Checkpoint,
    linears: Mapping[str, GroupTensor],
    record: CompressionRecord | None,
) -> None:
    config = dict(checkpoint.huggingface_config or {})
    if record is not None:
        config[QUANTIZATION] = {
            "quant_method": QUANT_METHOD,
            "format_version": FORMAT_VERSION,
            "linears": {name: tensor.format.to_json() for name, tensor in linears.items()},
        }
    _write_json(folder / CONFIG, config)
    # "pt" tells transformers that the names and layouts are PyTorch's.
    save_file(_arrays(checkpoint, linears), folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors may keep its file to its owner; a service often runs as another user.
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
    write_tokenizer(folder, checkpoint.tokenizer)
    if record is None:
        return
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    _write_json(folder / RECORD, {**record.to_json(), "files": hashes})


def _arrays(checkpoint: Checkpoint, linears: Mapping[str, GroupTensor]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in checkpoint.tensors.items():
        module, _, end = name.rpartition(".")
        if end == "weight" and module in linears:
            parts = {part: getattr(linears[module], field) for field, part in PARTS.items()}
            arrays |= {f"{module}.{part}": array for part, array in parts.items() if array is not None}
        else:
            arrays[name] = tensor.dequantize()
    return arrays


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """What `read_tokenizer` makes an equal tokenizer of, and transformers one of the same ids."""
    source = str(folder / TOKENIZER)
    (folder / TOKENIZER).write_text(tokenizer.definition, encoding="utf-8")
    known = Tokenizer.from_json(tokenizer.definition, source=source).special_ids
    bos, eos = tokenizer.bos_id, tokenizer.eos_ids
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bos is not None,
        "bos_token": None if bos is None else tokenizer.token_text(bos),
        "eos_token": tokenizer.token_text(eos[0]) if eos else None,
        "clean_up_tokenization_spaces": False,
    }
    if unused := sorted(tokenizer.special_ids - known):
        settings[UNUSED_IDS] = unused
    _write_json(folder / SETTINGS, settings)
    _write_json(folder / GENERATION, {"bos_token_id": bos, "eos_token_id": list(eos)})
    if tokenizer.chat_template is not None:
        (folder / CHAT_TEMPLATE).write_text(tokenizer.chat_template, encoding="utf-8", newline="")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _check_same(artefact: Checkpoint, checkpoint: Checkpoint) -> None:
    """Raise ModelError unless what was written says the same of the model, its weights apart."""
    same = {
        field.name: np.array_equal(
            getattr(artefact.config, field.name), getattr(checkpoint.config, field.name)
        )
        for field in fields(ModelConfig)
    }
    ours, theirs = artefact.tokenizer, checkpoint.tokenizer
    same["tokenizer"] = ours.content_hash == theirs.content_hash
    same["chat_template"] = ours.chat_template == theirs.chat_template
    if changed := [name for name, equal in same.items() if not equal]:
        raise ModelError(
            f"{checkpoint.name}: a Hugging Face directory cannot say the model's {', '.join(changed)}"
        )


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
