"""The files of a model's directory, each read once, bounded in size and hashed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bidtrie.errors import ModelError
from bidtrie.models.safetensors_file import SafetensorsEntry, read_safetensors

_MAX_TEXT = 1 << 27


class ModelFolder:
    """Reads files of `path` by their names. Every method raises ModelError naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.blake2b(digest_size=8)
        self._contents: dict[str, bytes | memoryview] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).is_file()

    def text(self, name: str) -> str:
        """The UTF-8 text of a file."""
        path = self.path / name
        if not path.is_file():
            raise ModelError(f"{path}: is missing")
        if path.stat().st_size > _MAX_TEXT:
            raise ModelError(f"{path}: has {path.stat().st_size} bytes, expected at most {_MAX_TEXT}")
        content = path.read_bytes()
        self._remember(name, content)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise ModelError(f"{path}: is not UTF-8") from None

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in a file."""
        try:
            value = json.loads(self.text(name))
        except (ValueError, RecursionError):
            raise ModelError(f"{self.path / name}: is not JSON (cut off?)") from None
        if not isinstance(value, dict):
            raise ModelError(f"{self.path / name}: is not a JSON object")
        return value

    def safetensors(self, name: str) -> dict[str, SafetensorsEntry]:
        """The tensors of a file, views of its mapped bytes."""
        entries, whole = read_safetensors(self.path / name)
        self._remember(name, whole.data)
        return entries

    def _remember(self, name: str, content: bytes | memoryview) -> None:
        self._contents[name] = content
        self._digest.update(len(content).to_bytes(8, "little"))
        self._digest.update(content)

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits over all files read so far, in the order of reading."""
        return self._digest.hexdigest()

    def sha256(self) -> dict[str, str]:
        """SHA-256, hexadecimal, of each file read so far, by its name."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self._contents.items()}
