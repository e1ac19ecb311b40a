"""Names of fetched models, and where each lies."""

import re
from pathlib import Path

from bidtrie.errors import ModelError
from bidtrie.home import models_dir

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


def is_model_name(text: str) -> bool:
    """Whether `text` can name a model: 1 to 64 letters, digits, '-', '_', '.', not beginning with '.'."""
    return _NAME.fullmatch(text) is not None


def model_path(name: str) -> Path | None:
    """The .gguf file or Hugging Face directory of a model in the cache folder; None if there is none.

    Raises ModelError if the model's folder holds neither or several files.
    """
    folder = models_dir() / name
    if not is_model_name(name) or not folder.is_dir():
        return None
    if (folder / "config.json").is_file():
        return folder
    files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    if len(files) > 1:
        raise ModelError(f"{folder}: holds {len(files)} .gguf files, expected one")
    return files[0] if files else None
