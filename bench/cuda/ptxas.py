"""Reads what `nvcc -Xptxas -v` prints of each kernel, and gives kernels short names."""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bidtrie.cuda.library import CODES, PATTERNS
from bidtrie.errors import BidtrieError


@dataclass(frozen=True, slots=True)
class Usage:
    """What a kernel takes: registers a thread; stack and spills in bytes a thread, shared memory a block.

    Spills and stack of functions that were not inlined count for the kernel that calls them.
    """

    symbol: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


_KERNEL = re.compile(r"Compiling entry function '(\w+)' for 'sm_\w+'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def parse(log: str) -> list[Usage]:
    """The kernels of a log, in its order; spills are stores and loads together.

    Raises BidtrieError for a kernel of which the log does not say everything.
    """
    kernels: list[Usage] = []
    missing: set[str] = set()

    def done() -> None:
        if missing:
            raise BidtrieError(
                f"ptxas does not say the {' and '.join(sorted(missing))} of {kernels[-1].symbol}"
            )

    for line in log.splitlines():
        if found := _KERNEL.search(line):
            done()
            kernels.append(Usage(found[1], 0, 0, 0, 0))
            missing = {"registers", "spills"}
        elif kernels and (found := _STACK.search(line)):
            stack, stores, loads = map(int, found.groups())
            last = kernels[-1]
            kernels[-1] = replace(
                last, stack_bytes=last.stack_bytes + stack, spill_bytes=last.spill_bytes + stores + loads
            )
            missing.discard("spills")
        elif kernels and (found := _USED.search(line)):
            shared = _SHARED.search(line)
            kernels[-1] = replace(
                kernels[-1], registers=int(found[1]), shared_bytes=int(shared[1]) if shared else 0
            )
            missing.discard("registers")
    done()
    return kernels


_ENTRY = re.compile(r"\.entry (\w+)\((?:[^{]*?)\.maxntid (\d+)(?:, (\d+), (\d+))?", re.DOTALL)


def block_threads(ptx: str) -> dict[str, int]:
    """Threads of a block, by symbol, of the kernels that have launch bounds."""
    return {
        found[1]: int(found[2]) * int(found[3] or 1) * int(found[4] or 1) for found in _ENTRY.finditer(ptx)
    }


def demangled(symbols: Sequence[str]) -> list[str]:
    """C++ names of symbols, by c++filt of GNU binutils."""
    if not symbols:
        return []
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


_NAMES = {
    "Codes": {number: name for name, number in CODES.items()},
    "Pattern": {number: name for name, number in PATTERNS.items()},
    "Scales": {1: "once", 2: "twice", 4: "four times"},
}
_TYPES = {"Float16": "fp16", "Bfloat16": "bf16"}
_NUMBERS: dict[str, Callable[[int], str]] = {
    "linear_few": lambda number: f"{8 * number} nodes",
    "tree_attention_kernel": lambda number: f"heads of {number}",
}


def short_name(name: str) -> str:
    """`linear_few<bf16, int4, dense, once, 8 nodes>` for a kernel's demangled name."""
    found = re.match(r"(?:void )?(?:\w+::)*(\w+)(?:<(.*)>)?\(", name)
    if not found:
        return name
    kernel, arguments = found.groups()
    if not arguments:
        return kernel
    return f"{kernel}<{', '.join(_argument(kernel, one) for one in arguments.split(', '))}>"


def _argument(kernel: str, argument: str) -> str:
    if found := re.fullmatch(r"\((?:\w+::)*(\w+)\)(\d+)", argument):
        return _NAMES.get(found[1], {}).get(int(found[2]), argument)
    if argument.isdecimal() and kernel in _NUMBERS:
        return _NUMBERS[kernel](int(argument))
    plain = argument.rpartition("::")[2]
    return _TYPES.get(plain, plain)
