"""A long run at 0.8 of the capacity: memory, file descriptors and threads have to stay flat.

New and repeated pages, creatives beside them; the server's process is watched from outside, every few seconds.

python -m bench.soak [--json FILE] [--plot FILE.png] [--minutes 20]
"""

import argparse
import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from bidtrie.client import AsyncClient
from bidtrie.client.errors import RequestFailed
from bidtrie.load import LoadOptions, run_async
from bidtrie.load.report import LoadReport
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import creative_pb2

from bench.measure import machine, report, serving_parser
from bench.overload import TMAX_MS, capacity

_EVERY_S = 5.0
#: What is left out at the start: caches fill, allocators settle.
_SETTLING = 0.25


def watch(pid: int, stop: threading.Event, rows: list[tuple[float, float, int, int]]) -> None:
    """Seconds, resident MiB, open files and threads of a process, until `stop`."""
    begin = time.monotonic()
    while not stop.wait(_EVERY_S):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        rows.append(
            (time.monotonic() - begin, int(fields["VmRSS"].split()[0]) / 1024, files, int(fields["Threads"]))
        )


async def load(port: int, rate: float, seconds: float, failed: list[int]) -> LoadReport:
    """Half new pages, half repeated ones, and a creative now and then: the numbers of those that failed are added."""

    def options(**more: Any) -> LoadOptions:
        return LoadOptions(
            target=f"127.0.0.1:{port}", duration=seconds, tmax_ms=TMAX_MS, timeout_ms=2_000.0, **more
        )

    async def creatives() -> None:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            i = 0
            while True:
                i += 1
                product = creative_pb2.Product(name=f"Cup number {i}")
                try:
                    await client.generate(product=product, timeout_ms=60_000)
                except RequestFailed:
                    failed.append(i)
                await asyncio.sleep(2.0)

    beside = asyncio.create_task(creatives())
    fresh, _ = await asyncio.gather(
        run_async(options(rps=rate / 2, fresh=True)), run_async(options(rps=rate / 2, repeat=2_000))
    )
    assert not beside.done(), beside.exception()
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    return fresh


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run, with the rows that were seen."""
    rows: list[tuple[float, float, int, int]] = []
    failed: list[int] = []
    with own_server(options.model, [options.catalog]) as ports:
        peak = capacity(ports, 5.0)
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(ports.pid, stop, rows))
        watcher.start()
        summary = asyncio.run(load(ports.grpc, 0.8 * peak, 60 * options.minutes, failed)).summary
        stop.set()
        watcher.join()
    settled = np.array(rows[int(_SETTLING * len(rows)) :])
    minutes = settled[:, 0] / 60
    return {
        "benchmark": "soak",
        "minutes": options.minutes,
        "capacity_rps": peak,
        "offered_rps": 2 * summary.offered_rps,
        "answered_in_time_share": summary.good / summary.offered,
        "creatives_failed": len(failed),
        "memory_first_mib": float(settled[:10, 1].mean()),
        "memory_last_mib": float(settled[-10:, 1].mean()),
        "memory_slope_mib_per_minute": float(np.polyfit(minutes, settled[:, 1], 1)[0]),
        "open_files_min": int(settled[:, 2].min()),
        "open_files_max": int(settled[:, 2].max()),
        "threads_min": int(settled[:, 3].min()),
        "threads_max": int(settled[:, 3].max()),
        "rows": rows,
    } | machine()


def plot(figures: dict[str, Any], file: Path) -> None:
    """Three curves over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen = np.array(figures["rows"])
    figure, panels = pyplot.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for axes, column, name in zip(panels, (1, 2, 3), ("memory, MiB", "open files", "threads"), strict=True):
        axes.plot(seen[:, 0] / 60, seen[:, column])
        axes.set(ylabel=name, ylim=(0, 1.15 * seen[:, column].max()))
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("minutes")
    figure.suptitle(f"The server under {figures['offered_rps']:.0f} requests a second (0.8 of its capacity)")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = serving_parser(__doc__)
    parser.add_argument("--plot", type=Path, help="draw what was seen to this file")
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the run")
    options = parser.parse_args()
    figures = run(options)
    if options.plot is not None:
        plot(figures, options.plot)
    report({key: value for key, value in figures.items() if key != "rows"}, options.json)


if __name__ == "__main__":
    main()
