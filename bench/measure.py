"""What all benchmarks share: latency figures, the machine's load, and the JSON line."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


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
