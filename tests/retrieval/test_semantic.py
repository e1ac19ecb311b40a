"""The semantic retriever against cosines in float64, its cells against comparing everything, and what is stored."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.retrieval import index_store, segment_vectors, semantic, semantic_store
from bidtrie.retrieval.cells import ROWS_A_CELL, cells
from bidtrie.retrieval.hybrid import LEXICAL_WEIGHT, SEMANTIC_WEIGHT, HybridRetriever, load_or_build_hybrid
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.retrieval.semantic import SEMANTIC_ARRAYS, SemanticRetriever, semantic_arrays
from bidtrie.retrieval.semantic_store import load_or_build_semantic, semantic_path
from bidtrie.retrieval.word_vectors import package_vectors
from bidtrie.trie.array_file import file_bytes
from bidtrie.trie.catalog import Catalog, Segment

from bench.synthetic_catalog import synthetic_segments

QUERIES = [
    "wireless headphones for the garden",
    "Sourdough for beginners",
    "puppy training",
    "cheap car loans",
]


def shop(count: int, seed: int = 0) -> Catalog:
    """Synthetic segments, every third one with keywords."""
    made = synthetic_segments(count, seed)
    return Catalog(
        "shop",
        [
            Segment(s.id, s.name, s.path, ("gift", "on sale") if i % 3 == 0 else ())
            for i, s in enumerate(made)
        ],
    )


def plain(catalog: Catalog, query: str) -> np.ndarray:
    """Cosines in float64, segment by segment."""
    words = package_vectors()

    def length_1(vector: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(vector)
        return vector / length if length else vector

    def vector(texts: tuple[str, ...]) -> np.ndarray:
        return sum((words.sum(text).astype(np.float64) for text in texts), np.zeros(words.dimensions))

    wanted = length_1(vector((query,)))
    found = []
    for each in catalog.segments:
        whole = length_1(vector(each.path)) + length_1(vector((each.name,)))
        whole += segment_vectors.KEYWORD_WEIGHT * length_1(vector((", ".join(each.keywords),)))
        found.append(max(0.0, float(length_1(whole) @ wanted)))
    return np.array(found)


def test_scores_are_the_cosines() -> None:
    catalog = shop(300)
    retriever = SemanticRetriever(catalog)
    for query in QUERIES:
        expected = plain(catalog, query)
        assert expected.max() > 0.1
        np.testing.assert_allclose(retriever.scores(query), expected, atol=0.01)
        assert np.abs(retriever.scores(query) - expected[::-1]).max() > 0.1


def test_texts_and_segments_without_known_words() -> None:
    bare = Catalog(
        "bare", [Segment("a", "\u4e2d\u6587", ("\u4e2d\u6587",)), Segment("b", "bread", ("bread",))]
    )
    retriever = SemanticRetriever(bare)
    assert retriever.scores("").tolist() == [0, 0]
    assert retriever.shortlist("\u4e2d", 2) == []
    assert [i for i, _ in retriever.shortlist("sourdough", 2)] == [1]


def test_meaning_is_found_where_no_word_is_shared() -> None:
    names = ["Cooking", "Soccer", "Personal Finance", "Gardening", "Video Gaming"]
    topics = Catalog("topics", [Segment(name, name, (name,)) for name in names])
    texts = [
        "Baked lasagne recipe",
        "Arsenal striker injured",
        "mortgage rates rise",
        "planting bulbs and pruning shrubs",
        "PlayStation",
    ]
    found = [SemanticRetriever(topics).scores(text).argmax() for text in texts]
    assert found == [0, 1, 2, 3, 4]
    assert not any(LexicalRetriever(topics).scores(text).any() for text in texts)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells for catalogs of more than 1,000 segments, of which about 2,500 are compared."""
    monkeypatch.setattr(semantic, "EXACT", 1_000)
    monkeypatch.setattr(semantic, "COMPARED", 2_500)


@pytest.mark.usefixtures("small_limits")
def test_cells_find_what_comparing_everything_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = shop(12_000)
    by_cells = SemanticRetriever(catalog)
    monkeypatch.setattr(semantic, "EXACT", 100_000)
    whole = SemanticRetriever(catalog)
    shared = chance = 0.0
    for query in QUERIES:
        exact, found = whole.scores(query), by_cells.scores(query)
        compared = found > 0
        np.testing.assert_allclose(found[compared], exact[compared], atol=1e-5)
        assert compared.sum() <= 2_500 + 2 * ROWS_A_CELL
        best = np.argsort(-exact, kind="stable")[:20]
        shared += compared[best].mean() / len(QUERIES)
        chance += compared.mean() / len(QUERIES)
    assert shared > 0.7
    assert chance < 0.4


def test_cells_hold_every_row_once_and_are_bounded() -> None:
    random = np.random.default_rng(0)
    # Half of the rows are the same: more than a cell may hold.
    codes = random.integers(-127, 128, (9_000, 8)).astype(np.int8)
    codes[::2] = codes[0]
    order, begin, centres = cells(codes)
    assert sorted(order.tolist()) == list(range(9_000))
    assert begin[0] == 0
    assert begin[-1] == 9_000
    assert np.diff(begin).min() > 0
    assert np.diff(begin).max() <= 2 * ROWS_A_CELL
    assert centres.shape == (len(begin) - 1, 8)
    again = cells(codes)
    assert all((a == b).all() for a, b in zip(again, (order, begin, centres), strict=True))


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("count", [200, 3_000])
def test_stored_vectors_give_the_same_scores(tmp_path: Path, count: int) -> None:
    catalog = shop(count)
    built = load_or_build_semantic(tmp_path, catalog)
    before = semantic_path(tmp_path).stat().st_mtime_ns
    loaded = load_or_build_semantic(tmp_path, catalog)
    assert semantic_path(tmp_path).stat().st_mtime_ns == before
    for query in QUERIES:
        assert built.scores(query).any()
        assert (loaded.scores(query) == built.scores(query)).all()


def test_damage_and_change_are_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = shop(60)
    expected = SemanticRetriever(catalog).scores(QUERIES[0])

    def again() -> bool:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert (load_or_build_semantic(tmp_path, catalog).scores(QUERIES[0]) == expected).all()
        return "is built again" in caplog.text

    load_or_build_semantic(tmp_path, shop(60, seed=1))
    assert again()
    assert not again()
    path = semantic_path(tmp_path)
    sound = path.read_bytes()
    for i in range(16, len(sound), len(sound) // 40):
        damaged = bytearray(sound)
        damaged[i] ^= 4
        path.write_bytes(damaged)
        assert again(), i
    for module, name, value in ((segment_vectors, "KEYWORD_WEIGHT", 5.0), (semantic, "EXACT", 50)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            load_or_build_semantic(tmp_path, catalog)
        assert again(), name
    identity = semantic_store._identity(catalog, package_vectors()) | {"word_vectors": "others"}
    path.write_bytes(file_bytes(semantic_arrays(catalog, package_vectors()), identity))
    assert again()


def test_forged_vectors_are_refused() -> None:
    catalog = shop(60)
    sound = semantic_arrays(catalog, package_vectors())
    assert tuple(sound) == SEMANTIC_ARRAYS
    for name in SEMANTIC_ARRAYS:
        with pytest.raises(CatalogError):
            SemanticRetriever(catalog, sound | {name: sound[name][:-1]})
        with pytest.raises(CatalogError):
            SemanticRetriever(catalog, sound | {name: sound[name].astype(np.float64)})
    for name in ("order", "begin"):
        for value in (-1, 1 << 30):
            forged = sound[name].copy()
            forged[-1] = value
            with pytest.raises(CatalogError):
                SemanticRetriever(catalog, sound | {name: forged})


def test_a_read_only_folder_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(index_store, "write_atomically", fail)
    catalog = shop(60)
    found = load_or_build_semantic(tmp_path, catalog).scores(QUERIES[0])
    assert (found == SemanticRetriever(catalog).scores(QUERIES[0])).all()
    assert "cannot be stored" in caplog.text


def test_the_hybrid_adds_both_and_changes_neither(tmp_path: Path) -> None:
    catalog = shop(200)
    lexical, meaning = LexicalRetriever(catalog), SemanticRetriever(catalog)
    hybrid = load_or_build_hybrid(tmp_path, catalog)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lexical.safetensors", "semantic.safetensors"]
    for query in QUERIES:
        a, b = lexical.scores(query), meaning.scores(query)
        expected = LEXICAL_WEIGHT * a.astype(np.float64) + SEMANTIC_WEIGHT * b.astype(np.float64)
        np.testing.assert_allclose(hybrid.scores(query), expected, rtol=1e-5)
        assert (HybridRetriever(lexical, meaning).scores(query) == hybrid.scores(query)).all()
        assert (meaning.scores(query) == b).all()
        assert (lexical.scores(query) == a).all()
    assert hybrid.shortlist("\u4e2d", 5) == []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(hybrid.scores, QUERIES * 25))
    assert all((f == hybrid.scores(q)).all() for f, q in zip(found, QUERIES * 25, strict=True))
