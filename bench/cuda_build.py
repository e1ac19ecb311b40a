"""What the compiler makes of the CUDA kernels: registers, spills, shared memory, occupancy, machine instructions.

Compiles every file of kernels/cuda for every architecture with warnings as errors; no GPU is needed. Machine
instructions are counted where nvdisasm is: on the PATH, or of the package nvidia-cuda-nvdisasm. Results are kept under
build/cuda for as long as the sources are the same. Exits with 1 if a kernel is not as it should be.

python -m bench.cuda_build [--json FILE] [--architectures 80,86,89,90,100,120] [--write docs/gpu-build.md]
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bidtrie.cli.progress import track
from bidtrie.errors import BidtrieError, InvalidInput

from bench.cuda.build import (
    SOURCES,
    Row,
    compile_all,
    faults,
    known_architectures,
    nvcc_version,
    nvdisasm_version,
)
from bench.cuda.page import page
from bench.measure import machine, report


def run(architectures: Sequence[int]) -> list[Row]:
    """All kernels, sorted by architecture and name."""
    # The linears take longest: first, so that no one waits for them at the end.
    files = sorted(SOURCES, key=lambda source: not source.stem.startswith("linear"))
    units = [(source, one) for source in files for one in architectures]
    done = track(compile_all(units), "compiling", total=len(units))
    return sorted((row for rows in done for row in rows), key=lambda row: (row.architecture, row.kernel))


def figures(rows: Sequence[Row], architectures: Sequence[int]) -> dict[str, Any]:
    """What the JSON line says."""
    return {
        "nvcc": nvcc_version(),
        "nvdisasm": nvdisasm_version(),
        "architectures": list(architectures),
        "kernels": len(rows),
        "spill_bytes": sum(row.spill_bytes for row in rows if row.family != "linear_many"),
        "spill_bytes_many": sum(row.spill_bytes for row in rows if row.family == "linear_many"),
        "failed": [f"sm_{row.architecture} {row.kernel} {fault}" for row in rows for fault in faults(row)],
        "rows": [asdict(row) for row in rows],
    } | machine()


def _architectures(text: str) -> list[int]:
    known = known_architectures()
    wanted = text.split(",")
    unknown = [one for one in wanted if one not in map(str, known)]
    if unknown:
        expected = ", ".join(map(str, known))
        raise InvalidInput.of(
            "--architectures", f"{', '.join(unknown)} is unknown, expected some of {expected}"
        )
    return sorted(set(map(int, wanted)))


def main() -> int:
    """Compile, print, and say by the exit status whether all is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--architectures", default="80,86,89,90,100,120", help="compute capabilities times ten"
    )
    parser.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    options = parser.parse_args()
    try:
        nvcc_version()
        architectures = _architectures(options.architectures)
        rows = run(architectures)
        text = page(rows) if options.write else None
    except BidtrieError as error:
        print(error, file=sys.stderr)
        return 2
    if text is not None:
        temporary = options.write.with_name(f".{options.write.name}.new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(options.write)
    result = figures(rows, architectures)
    for fault in result["failed"]:
        print(fault, file=sys.stderr)
    report(result, options.json)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
