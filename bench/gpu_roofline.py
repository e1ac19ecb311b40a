"""What a decoding step must move and compute on GPUs that are not at hand: floors, not measurements.

    python -m bench.gpu_roofline [--prefix 256] [--json FILE]

A step of one node reads every linear's weights once, the prefix' keys and values, and (for a token of its own
choice) the head; a GPU cannot be faster than its memory gives those bytes, nor than its tensor cores multiply. Prints
a table of milliseconds, and one JSON object last. Bandwidths and rates are the vendor's data sheets'.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bidtrie.models.group_format import GroupFormat

from bench.gpu.shapes import FORMATS, MODELS, Shape

#: GB/s of memory, and dense TFLOP/s of 16-bit tensor cores.
GPUS = {
    "L4": (300, 121),
    "A10": (600, 125),
    "L40S": (864, 362),
    "A100 80GB": (2039, 312),
    "H100 SXM": (3350, 989),
}


def bits_per_weight(format: GroupFormat | None) -> float:
    """Of codes, positions, scales and minimums; 16 for None, dense 16-bit weights."""
    if format is None:
        return 16
    kept = {"dense": 4, "2:4": 2, "1:4": 1}[format.pattern] / 4
    positions = 0 if format.pattern == "dense" else 2
    return kept * (format.bits + positions) + (32 if format.minimum else 16) / format.group_size


def step_bytes(model: Shape, format: GroupFormat | None, prefix: int, head: bool) -> float:
    """Bytes that a step of one node reads."""
    linears = sum(rows * cols for rows, cols in model.linears().values()) * model.layers
    cache = 2 * 2 * prefix * model.kv_heads * model.head_size * model.layers
    return (
        linears * bits_per_weight(format) / 8 + cache + (2 * model.vocabulary * model.hidden if head else 0)
    )


def floor_ms(
    model: Shape, format: GroupFormat | None, gpu: str, prefix: int, nodes: int, head: bool
) -> float:
    """The larger of the time for the bytes and the time for the multiplications."""
    bandwidth, rate = GPUS[gpu]
    linears = sum(rows * cols for rows, cols in model.linears().values()) * model.layers
    return max(step_bytes(model, format, prefix, head) / bandwidth / 1e6, 2 * nodes * linears / rate / 1e9)


def table(prefix: int) -> list[dict[str, Any]]:
    """A row for each model and format: bits, MB a step, ms on each GPU for a step without head."""
    formats: Mapping[str, GroupFormat | None] = {"bf16": None, **FORMATS}
    rows = []
    for model in MODELS:
        for name, format in formats.items():
            row: dict[str, Any] = {
                "model": model.name,
                "format": name,
                "bits_per_weight": round(bits_per_weight(format), 3),
                "mb_per_step": round(step_bytes(model, format, prefix, False) / 1e6, 1),
            }
            for gpu in GPUS:
                row[f"{gpu} ms"] = round(floor_ms(model, format, gpu, prefix, 1, False), 3)
            rows.append(row)
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prefix", type=int, default=256, help="tokens whose keys and values are read")
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    arguments = parser.parse_args()
    rows = table(arguments.prefix)
    print("| " + " | ".join(rows[0]) + " |")
    print("|---|---" + "|--:" * (len(rows[0]) - 2) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    line = json.dumps({"prefix_tokens": arguments.prefix, "rows": rows})
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
