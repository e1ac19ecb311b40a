"""What all benchmarks share: latency figures, the machine's load, and the JSON line."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Pages of the project's own, where the user names no file.
STAND_IN = Path(__file__).parent / "data" / "pages.tsv"


def targeting_options(description: str | None, titles: int, threads: int | None = None) -> argparse.Namespace:
    """The flags of the targeting benchmarks; `titles` is the default number of pages.

    `threads`: the default of a flag `--threads`, which both sides get; None: there is no such flag.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--pages", type=Path, default=STAND_IN, help="labelled pages")
    parser.add_argument("--catalog", default="iab-content", help="name of a built catalog")
    parser.add_argument("--model", default="smollm2-135m", help="name or path of a Llama checkpoint")
    parser.add_argument("--titles", type=int, default=titles, help="how many pages")
    if threads is not None:
        parser.add_argument("--threads", type=int, default=threads, help="threads of each engine")
    return parser.parse_args()


def serving_parser(description: str | None) -> argparse.ArgumentParser:
    """The flags of the benchmarks that load a server of their own; each adds its own."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--catalog", default="iab-content", help="name of a built catalog")
    parser.add_argument("--model", default="smollm2-135m", help="name or path of a checkpoint")
    return parser


def latency(name: str, milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile, minimum and maximum, keyed `NAME_p50_ms` and so on."""
    return {
        f"{name}_p50_ms": float(np.percentile(milliseconds, 50)),
        f"{name}_p95_ms": float(np.percentile(milliseconds, 95)),
        f"{name}_min_ms": min(milliseconds),
        f"{name}_max_ms": max(milliseconds),
    }


def machine() -> dict[str, Any]:
    """Cores and the load average of the last minute: who else was running."""
    return {"cores": len(os.sched_getaffinity(0)), "load_average_1min": os.getloadavg()[0]}


def report(figures: dict[str, Any], file: Path | None) -> None:
    """Print the figures as the last line, and write them to a file if one is named."""
    line = json.dumps(figures)
    if file is not None:
        temporary = file.with_name(f".{file.name}.new")
        temporary.write_text(line + "\n", encoding="utf-8")
        temporary.replace(file)
    print(line)
