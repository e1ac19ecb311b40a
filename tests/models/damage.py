"""Ways to damage files, and what a damaged model may do: load, or be refused with an error that names the file."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
from bidtrie.errors import BidtrieError
from bidtrie.models.load import load_checkpoint

#: More than any honest load of the tiny files takes; far less than the sizes that damaged headers claim.
MOST_MEMORY = 32 << 20
WORDS = (0, 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)


def load_or_refuse(path: Path, name: str) -> bool:
    """Whether `path` loads; anything but an error of ours that names `name` fails the test."""
    refused = None
    tracemalloc.start()
    try:
        checkpoint = load_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            assert tensor.dequantize().shape == tensor.shape
    except BidtrieError as error:
        refused = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert refused is None or (name in refused and refused.isprintable())
    assert peak < MOST_MEMORY
    return refused is None


def bend(content: bytes, rng: np.random.Generator, first: int, last: int) -> bytes:
    """One to four bits, bytes or 8-byte words between `first` and `last`, changed."""
    bent = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(first, last))
        match int(rng.integers(3)):
            case 0:
                bent[at] ^= 1 << int(rng.integers(8))
            case 1:
                bent[at] = int(rng.integers(256))
            case 2:
                word = WORDS[int(rng.integers(len(WORDS)))]
                bent[at : at + 8] = struct.pack("<Q", word)[: len(content) - at]
    return bytes(bent)
