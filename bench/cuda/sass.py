"""Counts the machine instructions that make a kernel fast: wide loads and tensor cores."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instructions:
    """Of one kernel, as they stand in its code: loads from global memory by width, multiplications of matrices.

    `weights_128`: those of `loads_128` that pass by the first-level cache, as only weights do.
    """

    loads_128: int
    weights_128: int
    loads_other: int
    tensor: int
    tensor_sparse: int


_KERNEL = re.compile(r"^\.text\.(\w+):$")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)")


def count(listing: str) -> dict[str, Instructions]:
    """By symbol, from what `nvdisasm -c` prints."""
    operations: dict[str, list[str]] = {}
    here: list[str] = []
    for line in listing.splitlines():
        if found := _KERNEL.match(line):
            here = operations.setdefault(found[1], [])
        elif found := _INSTRUCTION.search(line):
            here.append(found[1])
    return {symbol: _count(names) for symbol, names in operations.items()}


def _count(names: list[str]) -> Instructions:
    loads = [name.split(".") for name in names if name.split(".")[0] == "LDG"]
    wide = [parts for parts in loads if "128" in parts]
    weights = sum("NA" in parts for parts in wide)
    tensor = [name for name in names if name.startswith("HMMA.")]
    sparse = sum(name.startswith("HMMA.SP.") for name in tensor)
    return Instructions(len(wide), weights, len(loads) - len(wide), len(tensor) - sparse, sparse)


def find_nvdisasm() -> Path | None:
    """NVIDIA's disassembler: on the PATH, or of the package `nvidia-cuda-nvdisasm`; None where there is none."""
    if found := shutil.which("nvdisasm"):
        return Path(found)
    try:
        files = metadata.files("nvidia-cuda-nvdisasm") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "nvdisasm"), None)


def disassemble(nvdisasm: Path, cubin: Path) -> str:
    """The listing that `count` takes."""
    done = subprocess.run([nvdisasm, "-c", cubin], capture_output=True, text=True, check=True)
    return done.stdout
