"""GB/s and GMAC/s of every packed format, beside what this machine can read and multiply at most.

The linears of a model of SmolLM2-135M's shape, with random weights, and nothing between them: 106 M weights, more than
most caches hold. Formats take turns in every round. Shares are of the read bandwidth of a buffer as large as the packed
weights (caches help both alike) and of one far larger, and of the multiply-add instruction's own rate: two a cycle on
most machines, so with AVX2 (`maddubs`) 64 products a cycle and core. `share_of_avx2_peak` counts any instruction set's
work against that ceiling.

python -m bench.kernels [--json FILE] [--threads 2] [--nodes 1,8,64] [--rounds 7]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from bidtrie import _native
from bidtrie.cli.progress import track
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.models.group_tensor import GroupFormat

from bench.measure import machine, report

_LAYERS = 30
#: Rows and columns of the linears of a layer, in the order of use.
_SHAPES = ((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536))
_FORMATS = (
    GroupFormat(4, 32),
    GroupFormat(4, 32, minimum=True),
    GroupFormat(4, 32, table=True),
    GroupFormat(4, 16),
    GroupFormat(4, 64),
    GroupFormat(8, 32),
    GroupFormat(4, 32, pattern="2:4"),
    GroupFormat(4, 32, table=True, pattern="2:4"),
    GroupFormat(4, 32, pattern="1:4"),
    GroupFormat(4, 32, table=True, pattern="1:4"),
)
_LARGE_BYTES = 1 << 28


def _stack(format: GroupFormat, rng: np.random.Generator) -> _native.LinearStack:
    stack = _native.LinearStack()
    layer = [quantize(rng.standard_normal(shape).astype(np.float32), format) for shape in _SHAPES]
    for _ in range(_LAYERS):
        for tensor in layer:
            stack.add(tensor)
    return stack


def run(threads: int, nodes: list[int], rounds: int) -> dict[str, Any]:
    """All figures of one run."""
    rng = np.random.default_rng(1)
    stacks = {format.name: _stack(format, rng) for format in _FORMATS}
    sets = [name for name in _native.instruction_sets() if name != "portable"] or ["portable"]
    keys = [(name, isa, count) for name in stacks for isa in sets for count in nodes]
    seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in keys}
    same_size: dict[str, list[float]] = {name: [] for name in stacks}
    large: list[float] = []
    peaks: dict[str, list[float]] = {isa: [] for isa in sets}
    for _ in track(range(rounds), "rounds", total=rounds):
        large += _native.read_bandwidth(_LARGE_BYTES, threads, 3)
        for isa in sets:
            peaks[isa].append(_native.multiply_add_peak(isa, threads, 0.1))
        for name, stack in stacks.items():
            same_size[name] += _native.read_bandwidth(stack.bytes, threads, 3)
            for isa in sets:
                for count in nodes:
                    seconds[name, isa, count] += stack.time(count, threads, 3, isa)
    peak = {isa: float(np.median(values)) for isa, values in peaks.items()}
    rows = []
    for name, isa, count in keys:
        times, stack = seconds[name, isa, count], stacks[name]
        median = float(np.median(times))
        products = stack.weights * count / median
        rows.append(
            {
                "format": name,
                "instruction_set": isa,
                "nodes": count,
                "packed_mb": stack.bytes / 1e6,
                "ms": median * 1e3,
                "min_ms": min(times) * 1e3,
                "max_ms": max(times) * 1e3,
                "gb_per_s": stack.bytes / median / 1e9,
                "gmac_per_s": products / 1e9,
                "share_of_read_same_size": stack.bytes / median / float(np.median(same_size[name])),
                "share_of_read_large": stack.bytes / median / float(np.median(large)),
                "share_of_peak": products / peak[isa],
                "share_of_avx2_peak": products / peak["avx2"] if "avx2" in peak else None,
            }
        )
    figures: dict[str, Any] = {
        "threads": threads,
        "read_large_gb_per_s": float(np.median(large)) / 1e9,
        "read_same_size_gb_per_s": {name: float(np.median(v)) / 1e9 for name, v in same_size.items()},
        "peak_gmac_per_s": {isa: value / 1e9 for isa, value in peak.items()},
        "rows": rows,
    }
    times_of = {(row["format"], row["instruction_set"], row["nodes"]): row["ms"] for row in rows}
    dense = GroupFormat(4, 32).name
    for label, pattern in (("2of4", "2:4"), ("1of4", "1:4")):
        sparse = GroupFormat(4, 32, pattern=pattern).name
        for count in nodes:
            ratio = times_of[dense, sets[0], count] / times_of[sparse, sets[0], count]
            figures[f"ratio_{label}_vs_dense_{count}_nodes"] = ratio
    return figures | machine()


def _print(figures: dict[str, Any]) -> None:
    print(
        f"{figures['threads']} threads; read {figures['read_large_gb_per_s']:.0f} GB/s from {_LARGE_BYTES >> 20} MiB; "
        + ", ".join(f"{isa} {value:.0f} GMAC/s at most" for isa, value in figures["peak_gmac_per_s"].items())
    )
    print(f"{'format':22}{'set':8}{'nodes':>5}{'ms':>8}{'GB/s':>7}{'of read':>9}{'GMAC/s':>8}{'of peak':>9}")
    for row in figures["rows"]:
        print(
            f"{row['format']:22}{row['instruction_set']:8}{row['nodes']:5}{row['ms']:8.2f}{row['gb_per_s']:7.1f}"
            f"{row['share_of_read_same_size']:9.0%}{row['gmac_per_s']:8.0f}{row['share_of_peak']:9.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=machine()["cores"])
    parser.add_argument("--nodes", default="1,2,4,8,16,32,64,128", help="node counts, comma-separated")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = run(options.threads, [int(count) for count in options.nodes.split(",")], options.rounds)
    _print(figures)
    report(figures, options.json)


if __name__ == "__main__":
    main()
