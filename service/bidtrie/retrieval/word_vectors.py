"""A vector for every English word piece, so that a text has one too: the sum of its pieces' vectors.

The vectors come with the package (`data/word-vectors.safetensors`, made by `retrieval.distill`). How common a piece is
is part of its vector's length, so that a sum needs no further weights. Static vectors know neither word order nor
context; in return a text takes microseconds.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bidtrie.errors import CatalogError
from bidtrie.retrieval.base import Float32
from bidtrie.trie.array_file import Vector, expect, file_bytes, map_arrays

TABLE_PATH = Path(__file__).parent / "data" / "word-vectors.safetensors"
#: What stands for a word that cannot be divided into known pieces; its vector is 0.
UNKNOWN = "[UNK]"
_ARRAYS = ("vocabulary", "scales", "codes")
_FORMAT = 1


class WordVectors:
    """A vocabulary of word pieces with their vectors; safe to use from several threads.

    dimensions  length of a vector
    identity    changes with the table: what was computed with another one is not comparable
    """

    def __init__(self, path: Path = TABLE_PATH) -> None:
        """Map a table into memory; CatalogError if it cannot be read, is damaged or inconsistent."""
        metadata, arrays = map_arrays(path, _ARRAYS)
        expect(path, metadata, {"format": str(_FORMAT)})
        try:
            pieces = bytes(arrays["vocabulary"]).decode().split("\n")
        except UnicodeDecodeError as error:
            raise CatalogError(f"{path}: the vocabulary is damaged: {error}") from error
        self.identity = metadata["checksum"]
        self._scales: Float32 = arrays["scales"]
        self.dimensions, rest = divmod(len(arrays["codes"]), len(pieces))
        sound = pieces[0] == UNKNOWN and len(set(pieces)) == len(pieces) and not rest and self.dimensions > 0
        sound = sound and arrays["codes"].dtype == np.uint8 and arrays["scales"].dtype == np.float32
        if not sound or len(self._scales) != len(pieces):
            raise CatalogError(f"{path}: the table is inconsistent")
        self._codes = arrays["codes"].view(np.int8).reshape(len(pieces), self.dimensions)
        self._tokenizer = piece_tokenizer(pieces)

    def sum(self, text: str) -> Float32:
        """The sum of a text's pieces' vectors: float32 [dimensions], 0 for a text without known pieces."""
        return self._sum(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def sums(self, texts: Sequence[str]) -> Float32:
        """The same for many texts: float32 [texts, dimensions]."""
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for i, text in enumerate(texts):
            found[i] = self.sum(text)
        return found

    def _sum(self, ids: Sequence[int]) -> Float32:
        # One dot product, the scales as its left side.
        result: Float32 = self._scales[ids] @ self._codes[ids].astype(np.float32)
        return result


@cache
def package_vectors() -> WordVectors:
    """The table that comes with the package, loaded once a process."""
    return WordVectors()


def unit(vectors: Float32) -> Float32:
    """Vectors (the last axis) brought to length 1; those of length 0 stay so."""
    length = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    result: Float32 = (vectors / np.where(length > 0, length, np.float32(1))).astype(np.float32, copy=False)
    return result


def piece_tokenizer(pieces: Sequence[str]) -> Tokenizer:
    """Words to pieces, the longest first: as BERT's uncased models do it."""
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    # The library's own loops do not depend on order; its stubs know no keyword arguments.
    model: Any = WordPiece
    tokenizer = Tokenizer(model(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def quantized(vectors: Float32) -> tuple[NDArray[np.int8], Float32]:
    """Rows as int8 codes and their scales, with which each keeps its length: int8 [N, D], float32 [N]."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    step = np.where(largest > 0, largest / 127, np.float32(1))
    codes = np.rint(vectors / step).astype(np.int8)
    length = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
    rounded = np.sqrt(np.square(codes, dtype=np.float64).sum(axis=1))
    return codes, (length / np.where(rounded > 0, rounded, 1)).astype(np.float32)


def table_bytes(pieces: Sequence[str], vectors: Float32) -> bytes:
    """The content of a table's file. pieces: `UNKNOWN` first, its vector 0; vectors: float32 [pieces, D]."""
    codes, scales = quantized(vectors)
    arrays: dict[str, Vector] = {
        "vocabulary": np.frombuffer("\n".join(pieces).encode(), np.uint8),
        "scales": scales,
        "codes": codes.view(np.uint8).ravel(),
    }
    return file_bytes(arrays, {"format": str(_FORMAT)})
