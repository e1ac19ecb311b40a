"""What a run has done so far, on disk: a run that was killed goes on from there and ends with the same bytes."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bidtrie.errors import BidtrieError
from bidtrie.models.fields import Fields
from bidtrie.models.group_tensor import GroupFormat, GroupTensor

_IDENTITY = "run.json"
_PARTS = ("codes", "scales", "minimums", "table", "positions")


class WorkFolder:
    """The folder `.OUT.compressing` beside the folder `out` that is to be written.

    identity: what has to be the same for a run to go on: model, formats, text, settings. Raises BidtrieError if the
    folder is of another run.
    """

    def __init__(self, out: Path, identity: str) -> None:
        target = out.resolve()
        self.path = target.with_name(f".{target.name}.compressing")
        self.path.mkdir(exist_ok=True)
        stated = self.path / _IDENTITY
        if not stated.exists():
            self.write(_IDENTITY, lambda path: path.write_text(json.dumps({"identity": identity})))
        try:
            found = json.loads(stated.read_text())["identity"]
        except (ValueError, KeyError, TypeError):
            found = None
        if found != identity:
            raise BidtrieError(
                f"{self.path}: is of a run with another model, text or settings; remove it to begin anew, or give "
                "another --out"
            )

    def write(self, name: str, save: Callable[[Path], Any]) -> None:
        """A file of the folder, whole or not at all."""
        fresh = self.path / f"{name}.tmp"
        save(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(self.path / name)

    def put(self, key: str, tensor: GroupTensor, proxy_loss: float) -> None:
        """Keep a solved linear."""
        arrays: dict[str, NDArray[Any]] = {
            part: array for part in _PARTS if (array := getattr(tensor, part)) is not None
        }
        about = {
            "format": json.dumps(tensor.format.to_json()),
            "shape": json.dumps(tensor.shape),
            "proxy_loss": repr(proxy_loss),
        }
        self.write(f"{key}.safetensors", lambda path: save_file(arrays, path, metadata=about))

    def get(self, key: str) -> tuple[GroupTensor, float] | None:
        """A linear that was kept, and its proxy loss; None if it was not."""
        path = self.path / f"{key}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata()
                names = file.keys()
                parts: dict[str, NDArray[Any]] = {name: np.array(file.get_tensor(name)) for name in names}
            format = GroupFormat.from_json(Fields(str(path), json.loads(about["format"])))
            rows, cols = json.loads(about["shape"])
            return GroupTensor(format, (rows, cols), **parts), float(about["proxy_loss"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BidtrieError(f"{path}: is damaged ({error}); remove {self.path} to begin anew") from None

    def remove(self) -> None:
        """The run is done."""
        shutil.rmtree(self.path, ignore_errors=True)
