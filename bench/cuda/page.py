"""The page that shows what the compiler makes of the kernels, so that a change is seen in a diff."""

from collections.abc import Sequence
from dataclasses import astuple

from bidtrie.errors import InvalidInput

from bench.cuda.build import FLAGS, Row, faults, nvcc_version, nvdisasm_version
from bench.cuda.occupancy import LIMITS, REGISTERS, RESERVED_BYTES

#: The architecture of which the page shows every kernel.
_WHOLE = 90


def page(rows: Sequence[Row]) -> str:
    """docs/gpu-build.md. Raises InvalidInput unless the architecture that it shows whole was compiled."""
    whole = [row for row in rows if row.architecture == _WHOLE]
    if not whole:
        raise InvalidInput.of("--architectures", f"expected {_WHOLE} among them: --write shows its kernels")
    disassembler = nvdisasm_version()
    counted = f"counted by nvdisasm {disassembler}" if disassembler else "not counted: there was no nvdisasm"
    return f"""# What the compiler makes of the GPU's kernels

Written by `python -m bench.cuda_build --write docs/gpu-build.md` with nvcc {nvcc_version()}; machine instructions
{counted}. No GPU took part: these are the compiler's figures, not times. Flags:
`{" ".join(FLAGS)}`.

- **Registers** are a thread's, **shared memory** (static, bytes) a block's. **Spills** are the bytes of
  instructions that store registers to memory or load them again; the GEMV kernels `linear_few`, the attention and the
  head must have none, `linear_many` may: its launch bounds want two blocks a multiprocessor, which leaves a thread
  128 registers.
- **Warps** are those that a multiprocessor holds at once, by the least of what warps, blocks, registers and shared
  memory allow ("limited by").
- **Loads** are from global memory ("of weights": those of 128 bits that pass by the first-level cache), **tensor**
  multiplications of tensor cores (`HMMA`), as they stand in the code: an instruction in a loop counts once.

## Faults
{_faults(rows)}

## Kernels on sm_{_WHOLE}
{_kernels(whole)}

## All architectures
{_families(rows)}

## Spills
{_spills(rows)}

## What a multiprocessor holds
From "Compute Capabilities" in NVIDIA's
[CUDA Programming Guide](https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html).
A warp's registers are handed out in 256s from four equal quarters; each block's shared memory in 128s, with
{RESERVED_BYTES} bytes more for the system. A test compares the arithmetic with `cuda_occupancy.h` of the toolkit.

{_limits()}
"""


def _table(head: Sequence[str], lines: Sequence[Sequence[object]], texts: int) -> str:
    """In Markdown; the first `texts` columns are texts, the others numbers."""
    rule = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, rule, *lines))


def _faults(rows: Sequence[Row]) -> str:
    found = [f"- sm_{row.architecture} `{row.kernel}` {fault}" for row in rows for fault in faults(row)]
    return "\n".join(found) if found else "None."


def _kernels(rows: Sequence[Row]) -> str:
    head = ["kernel", "limited by", "threads", "registers", "spills", "stack", "shared", "warps"]
    head += ["128-bit loads", "of weights", "other loads", "tensor", "sparse tensor"]
    lines = []
    for row in rows:
        takes = (row.threads, row.registers, row.spill_bytes, row.stack_bytes, row.shared_bytes, row.warps)
        counts = astuple(row.sass) if row.sass else ("?",) * 5
        lines.append((f"`{row.kernel}`", row.limited_by, *takes, *counts))
    return _table(head, lines, 2)


def _families(rows: Sequence[Row]) -> str:
    families: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        families.setdefault((row.architecture, row.family), []).append(row)
    lines = []
    for (architecture, family), members in families.items():
        fewest, most = min(row.warps for row in members), max(row.warps for row in members)
        warps = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        registers, spilling = (
            max(row.registers for row in members),
            [row for row in members if row.spill_bytes],
        )
        spills = (len(spilling), sum(row.spill_bytes for row in spilling))
        names = (f"sm_{architecture}", f"`{family}`")
        lines.append((*names, len(members), registers, warps, LIMITS[architecture].warps, *spills))
    head = ["architecture", "kernel", "variants", "largest registers", "warps", "of"]
    return _table([*head, "variants with spills", "their bytes"], lines, 2)


def _spills(rows: Sequence[Row]) -> str:
    lines = [
        (f"sm_{row.architecture}", f"`{row.kernel}`", row.registers, row.spill_bytes, row.stack_bytes)
        for row in rows
        if row.spill_bytes
    ]
    head = ["architecture", "kernel", "registers", "spills, bytes", "stack, bytes"]
    return _table(head, lines, 2) if lines else "None."


def _limits() -> str:
    lines = [
        (f"sm_{one}", limit.warps, limit.blocks, REGISTERS, limit.shared_bytes >> 10)
        for one, limit in LIMITS.items()
    ]
    return _table(["architecture", "warps", "blocks", "registers", "shared memory, KiB"], lines, 1)
