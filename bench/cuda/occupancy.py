"""How many warps of a kernel a multiprocessor holds at once, from what the kernel takes.

Limits: "Compute Capabilities" in NVIDIA's CUDA Programming Guide
(https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html). How registers and shared
memory are handed out: `cuda_occupancy.h` of the CUDA toolkit, with which a test compares this file.
"""

from dataclasses import dataclass

#: 32-bit registers of a multiprocessor, the same for all; handed out in 256s a warp, from four quarters.
REGISTERS = 65536
_REGISTER_UNIT, _QUARTERS = 256, 4
#: Bytes of shared memory that the system takes for itself of each block; a block's are handed out in 128s.
RESERVED_BYTES = 1024
_SHARED_UNIT = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What a multiprocessor holds at most."""

    warps: int
    blocks: int
    shared_bytes: int


LIMITS = {
    80: Limits(64, 32, 164 << 10),
    86: Limits(48, 16, 100 << 10),
    89: Limits(48, 24, 100 << 10),
    90: Limits(64, 32, 228 << 10),
    100: Limits(64, 32, 228 << 10),
    120: Limits(48, 24, 100 << 10),
}


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def resident_warps(limits: Limits, threads: int, registers: int, shared_bytes: int) -> tuple[int, str]:
    """Warps a multiprocessor, and what keeps it from holding more.

    For blocks of `threads` with `registers` a thread (at least 1) and `shared_bytes` of static shared memory a block.
    """
    warps = -(-threads // 32)
    of_quarter = REGISTERS // _QUARTERS // _round_up(32 * registers, _REGISTER_UNIT)
    blocks = {
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
        "registers": of_quarter * _QUARTERS // warps,
        "shared memory": limits.shared_bytes // _round_up(shared_bytes + RESERVED_BYTES, _SHARED_UNIT),
    }
    least = min(blocks, key=blocks.__getitem__)
    return blocks[least] * warps, least
