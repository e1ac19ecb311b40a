"""Word vectors: sums against float64, the tokenizer against transformers, damage, the table of the package."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.retrieval.word_vectors import (
    TABLE_PATH,
    UNKNOWN,
    WordVectors,
    package_vectors,
    quantized,
    table_bytes,
    unit,
)
from bidtrie.trie.array_file import file_bytes, map_arrays

PIECES = [UNKNOWN, "bread", "sour", "##dough", "##s", "cafe", "!"]


def table(tmp_path: Path, seed: int = 0) -> tuple[WordVectors, np.ndarray]:
    """A small table and the vectors that it was made of."""
    vectors = np.random.default_rng(seed).normal(size=(len(PIECES), 6)).astype(np.float32)
    vectors[0] = 0
    path = tmp_path / "table.safetensors"
    path.write_bytes(table_bytes(PIECES, vectors))
    return WordVectors(path), vectors


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Sourdough breads!", [2, 3, 1, 4, 6]),
        ("CAFÉ café", [5, 5]),
        ("bread xyzzy bread", [1, 1]),
        ("xyzzy \u4e2d", []),
        ("", []),
    ],
)
def test_a_text_is_the_sum_of_its_pieces(tmp_path: Path, text: str, pieces: list[int]) -> None:
    words, vectors = table(tmp_path)
    expected = vectors.astype(np.float64)[pieces].sum(axis=0)
    np.testing.assert_allclose(words.sum(text), expected, atol=0.02 * max(1, len(pieces)))
    assert (words.sums([text, "bread"])[0] == words.sum(text)).all()
    if pieces:
        assert np.abs(words.sum(text) - vectors[[*pieces, 1]].sum(axis=0)).max() > 0.1


def test_quantized_rows_keep_length_and_direction() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32) * np.float32(7)
    rows[3] = 0
    codes, scales = quantized(rows)
    back = codes.astype(np.float64) * scales[:, None]
    filled = np.arange(50) != 3
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-5)
    cosine = (unit(rows) * unit(back.astype(np.float32))).sum(axis=1)
    assert cosine[filled].min() > 0.9998
    assert not back[3].any()


def test_damaged_and_inconsistent_tables_are_refused(tmp_path: Path) -> None:
    table(tmp_path)
    path = tmp_path / "table.safetensors"
    sound = path.read_bytes()
    for i in range(16, len(sound), 40):
        damaged = bytearray(sound)
        damaged[i] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CatalogError):
            WordVectors(path)
    path.write_bytes(sound)
    metadata, arrays = map_arrays(path, ("vocabulary", "scales", "codes"))
    metadata.pop("checksum")
    forged = (
        {"scales": arrays["scales"][:-1]},
        {"codes": arrays["codes"][:-1]},
        {"codes": arrays["codes"].astype(np.int32)},
        {"scales": arrays["scales"].astype(np.int64)},
        {"vocabulary": np.frombuffer(b"a\nb\nc\nd\ne\nf\ng", np.uint8)},
        {"vocabulary": np.frombuffer(b"[UNK]\nb\nb\nd\ne\nf\ng", np.uint8)},
    )
    for change in forged:
        path.write_bytes(file_bytes({name: np.array(a) for name, a in arrays.items()} | change, metadata))
        with pytest.raises(CatalogError, match="inconsistent"):
            WordVectors(path)
    with pytest.raises(CatalogError):
        WordVectors(tmp_path / "missing")


def test_the_packages_table() -> None:
    words = package_vectors()
    assert TABLE_PATH.stat().st_size < 5_000_000

    def cosine(a: str, b: str) -> float:
        return float(unit(words.sum(a)) @ unit(words.sum(b)))

    for text, near, far in (
        ("sourdough loaf", "bread baking", "car insurance"),
        ("goalkeeper saves penalty", "soccer", "gardening"),
        ("mortgage rates", "home loans", "jazz music"),
    ):
        assert cosine(text, near) > cosine(text, far) + 0.15, text
    with ThreadPoolExecutor(4) as pool:
        texts = ["Sourdough for beginners", "Used cars near me"] * 50
        assert all(
            (found == words.sum(t)).all() for t, found in zip(texts, pool.map(words.sum, texts), strict=True)
        )


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_texts_are_divided_as_by_berts_tokenizer(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    words = package_vectors()
    _, arrays = map_arrays(TABLE_PATH, ("vocabulary", "scales", "codes"))
    pieces = bytes(arrays["vocabulary"]).decode().split("\n")
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces, "[PAD]", "[CLS]", "[SEP]", "[MASK]"]) + "\n")
    reference = BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    for text in (
        "Déjà-vu: 7 unbelievably good CrossFit workouts!",
        "naïve \u4e2d\u6587 text",
        "a" * 101,
        "\u00df\tx\u200by",
    ):
        expected = reference.convert_tokens_to_ids(reference.tokenize(text))
        assert words._tokenizer.encode(text).ids == expected, text
