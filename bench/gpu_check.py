"""All that a machine with a GPU can tell about the CUDA kernels: are they right, and how fast.

    python -m bench.gpu_check [--json FILE] [--quick]

Correctness of every kernel against float64 and negative controls, the same under compute-sanitizer where it is
installed, GB/s against the bandwidth of a copy, whole decoding steps beside dense bfloat16 and PyTorch's int4. Needs
PyTorch with CUDA and the library that `make gpu-check` builds. The last line is one JSON object.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.gpu import correctness, ops, speed


def check(device: torch.device, seed: int, quick: bool) -> dict[str, Any]:
    """Numbers of cases, the largest errors as parts of their bounds, what failed."""
    worst: dict[str, float] = {}
    failed: list[str] = []
    count = 0
    parts = [correctness.linears, correctness.invariance, correctness.attentions, correctness.heads]
    parts += [ops.on_codes, ops.on_plain_weights, ops.attentions]
    for part in parts:
        for at, case in enumerate(part(device, seed)):
            if quick and at % 97:
                continue
            count += 1
            worst[case.kernel] = max(worst.get(case.kernel, 0.0), case.error_of_bound)
            if not case.error_of_bound <= 1:
                failed.append(f"{case.kernel} {case.name}: {case.error_of_bound:.3g}")
    wrong = [*correctness.controls(device, seed), *ops.controls(device, seed)]
    missed = [case.name for case in wrong if case.error_of_bound <= 1]
    failed += [f"negative control not caught: {name}" for name in missed]
    by_kernel = {name: round(value, 4) for name, value in worst.items()}
    return {"cases": count, "failed": failed, "error_of_bound": by_kernel}


def sanitize() -> str:
    """What compute-sanitizer says of a short run."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "not installed"
    command = [tool, "--error-exitcode", "9", sys.executable, "-m", "bench.gpu_check", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return "no errors"
    return f"exit {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}"


def main() -> int:
    """Run everything; 1 if a kernel is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few cases of correctness, no times")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use", file=sys.stderr)
        return 2
    device = torch.device("cuda:0")
    properties = torch.cuda.get_device_properties(device)
    result: dict[str, Any] = {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "correct": check(device, arguments.seed, arguments.quick),
    }
    if not arguments.quick:
        result["compute_sanitizer"] = sanitize()
        result["copy_gb_per_s"] = round(speed.copy_bandwidth(device), 1)
        result["read_gb_per_s"] = round(speed.read_bandwidth(device), 1)
        result["linears"] = speed.linear_rows(device, properties.L2_cache_size)
        result["steps"] = speed.step_rows(device)
    line = json.dumps(result)
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)
    return 1 if result["correct"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
