"""Loads the library of kernels, and calls it."""

import ctypes
from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

from bidtrie.errors import EngineError

#: Kinds of codes and patterns as kernels/include/bidtrie/weights.h numbers them.
CODES = {"int8": 1, "int4": 2, "int4-min": 3, "int4-table": 4}
PATTERNS = {"dense": 0, "2:4": 1, "1:4": 2}
_FORMAT = [c_int, c_int, c_int64]
_SIGNATURES: dict[str, tuple[list[type], type | None]] = {
    "bidtrie_packed_bytes": ([*_FORMAT, c_int64, c_int64], c_int64),
    "bidtrie_pack": ([*_FORMAT, c_int64, c_int64, *[c_void_p] * 5], c_int),
    "bidtrie_linear_plan": ([*_FORMAT, c_int64, c_int64, c_int64, c_int, c_void_p], None),
    "bidtrie_linear": (
        [
            *[*_FORMAT, c_int64, c_int64, c_void_p, c_void_p, c_int, c_void_p, c_int64, c_int64, c_void_p],
            *[c_void_p, c_int64, c_int, c_int, c_int, c_void_p, c_void_p, c_void_p],
        ],
        c_int,
    ),
    "bidtrie_attention_splits": ([*[c_int64] * 5, c_int], c_int),
    "bidtrie_attention_workspace_bytes": ([*[c_int64] * 5, c_int], c_int64),
    "bidtrie_tree_attention": (
        [
            *[
                c_int,
                *[c_int64] * 5,
                c_void_p,
                c_int64,
                c_void_p,
                c_int64,
                c_void_p,
                c_void_p,
                *[c_int64] * 4,
            ],
            *[c_void_p, c_int64, *[c_void_p] * 4, c_int64, c_float, c_int, c_void_p, c_void_p],
        ],
        c_int,
    ),
    "bidtrie_candidate_head": (
        [
            *[c_int, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p],
            *[c_void_p, c_int64, c_void_p, c_void_p, c_void_p],
        ],
        c_int,
    ),
    "bidtrie_cuda_error": ([c_int], c_char_p),
}
_NAME = "libbidtrie_cuda.so"


@cache
def library() -> ctypes.CDLL:
    """The library beside this file. Raises EngineError if it was not built."""
    path = Path(__file__).with_name(_NAME)
    if not path.exists():
        raise EngineError(
            f"{_NAME} is not installed: build bidtrie with BIDTRIE_CUDA=1 where nvcc is (docs/gpu.md)"
        )
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{_NAME} cannot be loaded: {error}") from None
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded


def is_built() -> bool:
    """Whether the library is installed."""
    return Path(__file__).with_name(_NAME).exists()


def check(code: int, what: str) -> None:
    """Raise EngineError for a cudaError_t that is not success."""
    if code:
        reason = library().bidtrie_cuda_error(code).decode()
        raise EngineError(f"{what}: CUDA error {code}: {reason}")
