"""The retriever's vectors: the same scores as plain dictionaries give, stored, mapped and checked."""

import logging
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.retrieval import index_store, lexical, lexical_store
from bidtrie.retrieval.lexical import LEXICAL_ARRAYS, LexicalRetriever, lexical_arrays
from bidtrie.retrieval.lexical_store import lexical_path, load_or_build_retriever
from bidtrie.trie.array_file import file_bytes
from bidtrie.trie.catalog import Catalog, Segment
from retrieval.plain_lexical import PlainLexical

from bench.synthetic_catalog import synthetic_segments

KEYWORDS = ["gardening tools", "Gardening", "the of", "déjà vu", "tool's"]


def catalog(seed: int, count: int = 120) -> Catalog:
    """Synthetic segments, some with keywords, in random order."""
    rng = np.random.default_rng(seed)
    made = synthetic_segments(count, seed)
    segments = [
        Segment(s.id, s.name, s.path, tuple(rng.choice(KEYWORDS, rng.integers(0, 4), replace=False).tolist()))
        for s in (made[i] for i in rng.permutation(len(made)))
    ]
    return Catalog("shop", segments)


def queries(of: Catalog, seed: int) -> list[str]:
    """Words of the catalog, repeated, misspelt and unknown."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(of.segments[i].path) for i in rng.integers(0, len(of), 12)]
    return [
        *texts,
        *(text[1:-2] for text in texts),
        "gardener gardener tools wirelessly",
        "xyzzy",
        "",
        "outdoors automotives furnitures petsupplies",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_dictionaries_to_the_bit(seed: int) -> None:
    shop = catalog(seed)
    plain, vectors = PlainLexical(shop), LexicalRetriever(shop)
    related = 0
    for query in queries(shop, seed):
        expected = plain.scores(query)
        assert (vectors.scores(query) == expected).all(), query
        related += bool(expected.any())
    assert related > 20


def test_the_dictionaries_notice_another_order_of_segments() -> None:
    shop = catalog(0)
    other = Catalog("shop", shop.segments[::-1])
    query = queries(shop, 0)[0]
    assert (LexicalRetriever(other).scores(query) != PlainLexical(shop).scores(query)).any()


def test_words_that_no_segment_has() -> None:
    bare = Catalog("bare", [Segment("a", "the", ("the",)), Segment("b", "!!", ("!!",))])
    retriever = LexicalRetriever(bare)
    assert retriever.scores("the words").tolist() == [0, 0]
    assert retriever.shortlist("anything", 3) == []


def test_stored_vectors_give_the_same_scores(tmp_path: Path) -> None:
    shop = catalog(4)
    built = load_or_build_retriever(tmp_path, shop)
    before = lexical_path(tmp_path).stat().st_mtime_ns
    loaded = load_or_build_retriever(tmp_path, shop)
    assert lexical_path(tmp_path).stat().st_mtime_ns == before
    for query in queries(shop, 4):
        assert (loaded.scores(query) == built.scores(query)).all()
        assert (loaded.scores(query) == LexicalRetriever(shop).scores(query)).all()
        assert loaded.shortlist(query, 5) == built.shortlist(query, 5)


def test_catalogs_without_words_are_stored_too(tmp_path: Path) -> None:
    bare = Catalog("bare", [Segment("a", "the", ("the",))])
    for _ in range(2):
        assert load_or_build_retriever(tmp_path, bare).scores("the").tolist() == [0]


def test_damage_and_change_are_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, other = catalog(5), catalog(6)
    query = queries(shop, 5)[0]
    expected = LexicalRetriever(shop).scores(query)

    def again() -> bool:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert (load_or_build_retriever(tmp_path, shop).scores(query) == expected).all()
        return "is built again" in caplog.text

    load_or_build_retriever(tmp_path, other)
    assert again()
    assert not again()
    path = lexical_path(tmp_path)
    sound = path.read_bytes()
    for i in range(16, len(sound), len(sound) // 60):
        damaged = bytearray(sound)
        damaged[i] ^= 4
        path.write_bytes(damaged)
        assert again(), i
    path.write_bytes(sound[:1000])
    assert again()
    for name in lexical_store._CONSTANTS:
        with monkeypatch.context() as patch:
            patch.setattr(lexical, name, getattr(lexical, name) + 0.1)
            assert (load_or_build_retriever(tmp_path, shop).scores(query) != expected).any()
        assert again(), name


def test_a_read_only_folder_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(index_store, "write_atomically", fail)
    shop = catalog(7)
    query = queries(shop, 7)[0]
    found = load_or_build_retriever(tmp_path, shop).scores(query)
    assert (found == LexicalRetriever(shop).scores(query)).all()
    assert "cannot be stored" in caplog.text


def test_forged_vectors_with_a_right_checksum_are_refused(tmp_path: Path) -> None:
    """Every index is in range, whatever a file says: a query may not read outside of its vectors."""
    shop = catalog(8)
    sound = lexical_arrays(shop)
    assert tuple(sound) == LEXICAL_ARRAYS
    query = queries(shop, 8)[0]
    expected = LexicalRetriever(shop, sound).scores(query)
    for name in (
        "branch",
        "segment_begin",
        "segment_documents",
        "branch_begin",
        "branch_documents",
        "gram_begin",
        "gram_words",
    ):
        for value in (-1, 1 << 30):
            forged = sound | {name: sound[name].copy()}
            forged[name][len(forged[name]) // 2] = value
            with pytest.raises((CatalogError, MemoryError)):
                LexicalRetriever(shop, forged)
            lexical_path(tmp_path).write_bytes(file_bytes(forged, lexical_store._identity(shop)))
            assert (load_or_build_retriever(tmp_path, shop).scores(query) == expected).all()
    for name in ("segment_weights", "gram_counts", "branch"):
        with pytest.raises(CatalogError):
            LexicalRetriever(shop, sound | {name: sound[name][:-1]})
    with pytest.raises(CatalogError):
        LexicalRetriever(shop, sound | {"vocabulary": sound["vocabulary"][: len(sound["vocabulary"]) // 2]})
