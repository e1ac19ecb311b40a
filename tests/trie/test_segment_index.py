"""Catalogs on disk without parsing them: the same segments, and damage is told."""

import logging
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.trie import segment_index, store
from bidtrie.trie.array_file import file_bytes, map_arrays
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.segment_index import INDEX_ARRAYS, StoredSegments, check_index, index_arrays
from bidtrie.trie.store import load_catalog, save_catalog
from reference.tries import random_trie

EXTRA = [
    Segment("ключ", "Größe", ("Größe",), ("a", "ß"), True),
    Segment("q\"'\\", "Größe>x\u200by", ("Größe", "Größe>x\u200by"), ("\u200b", "\\n")),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def catalog() -> Catalog:
    return Catalog("shop", [*random_trie(3, 50).catalog.segments, *EXTRA], cattax=7)


def same(one: Catalog, other: Catalog) -> bool:
    facts = [(c.name, c.version, c.cattax, len(c), c.tier1, c.parent.tolist()) for c in (one, other)]
    return facts[0] == facts[1] and tuple(one.segments) == tuple(other.segments)


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_stored_comes_back_one_by_one(
    mapped: bool, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(store, "_MAPPED_BYTES", 0)
    loaded = load_catalog(save_catalog(catalog, "test"))
    assert isinstance(loaded.segments, StoredSegments)
    assert same(loaded, catalog)
    assert loaded.segments == catalog.segments
    assert loaded.segments != catalog.segments[:-1]
    assert loaded.segments[-1] == catalog.segments[-1]
    assert loaded.segments[3:9:2] == catalog.segments[3:9:2]
    for outside in (len(catalog), -len(catalog) - 1):
        with pytest.raises(IndexError):
            loaded.segments[outside]
    for i, segment in enumerate(catalog.segments):
        assert loaded.segments[i] == segment
        assert loaded.index(segment.id) == i
        assert loaded.find(segment.id) == i
        assert segment.id in loaded
        assert loaded.path_text(i) == catalog.path_text(i)
        assert loaded.descendants(i).tolist() == catalog.descendants(i).tolist()
    for unknown in ("", "x" * 500, "50", "\ud800", "Größe"):
        assert unknown not in loaded
        assert loaded.find(unknown) is None
        with pytest.raises(KeyError):
            loaded.index(unknown)
    assert 3 not in loaded


def test_saving_a_loaded_catalog_writes_the_same(catalog: Catalog) -> None:
    def content(folder: Path) -> tuple[dict[str, bytes], dict[str, str], list[list[int]]]:
        texts = {path.name: path.read_bytes() for path in folder.iterdir() if "json" in path.name}
        metadata, arrays = map_arrays(folder / "index.safetensors", INDEX_ARRAYS)
        return texts, metadata, [array.tolist() for array in arrays.values()]

    before = content(save_catalog(catalog, "test"))
    assert content(save_catalog(load_catalog("shop"), "test")) == before
    assert content(save_catalog(Catalog("shop", catalog.segments[1:], cattax=7), "test")) != before


def test_ids_of_equal_hashes_are_told_apart(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_index, "_hash", lambda id: len(id) % 2)
    loaded = load_catalog(save_catalog(catalog, "test"))
    assert [loaded.index(segment.id) for segment in catalog.segments] == list(range(len(catalog)))
    assert "no such id" not in loaded


def test_catalogs_without_an_index_are_read_as_a_whole(catalog: Catalog) -> None:
    folder = save_catalog(catalog, "test")
    (folder / "index.safetensors").unlink()
    loaded = load_catalog("shop")
    assert isinstance(loaded.segments, tuple)
    assert same(loaded, catalog)


def test_every_damaged_byte_of_the_index_is_noticed_or_harmless(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_catalog(catalog, "test") / "index.safetensors"
    sound = path.read_bytes()
    noticed = 0
    with caplog.at_level(logging.WARNING):
        for i in range(0, len(sound), 7):
            damaged = bytearray(sound)
            damaged[i] ^= 1 << i % 8
            path.write_bytes(damaged)
            caplog.clear()
            loaded = load_catalog("shop")
            noticed += "all segments are read" in caplog.text
            assert same(loaded, catalog)
            assert [loaded.index(s.id) for s in catalog.segments] == list(range(len(catalog)))
    # What is left are the header's names for people and for padding.
    assert noticed > 0.95 * len(range(0, len(sound), 7))


def test_an_index_of_other_segments_is_not_used(catalog: Catalog) -> None:
    folder = save_catalog(catalog, "test")
    other = (folder / "index.safetensors").read_bytes()
    changed = Catalog("shop", catalog.segments[::-1])
    save_catalog(changed, "test")
    (folder / "index.safetensors").write_bytes(other)
    loaded = load_catalog("shop")
    assert isinstance(loaded.segments, tuple)
    assert same(loaded, changed)


@pytest.mark.parametrize("name", INDEX_ARRAYS)
def test_forged_indices_stay_in_range(name: str, catalog: Catalog) -> None:
    """Whatever one entry says, the index is refused, or each use of it ends in an answer or a CatalogError."""
    lines = [f"{store.segment_line(segment)}\n".encode() for segment in catalog.segments]
    text = b"".join(lines)
    sound = index_arrays(catalog.segments, lines, catalog.parent)
    check_index(sound, text)
    refused = 0
    info = np.iinfo(sound[name].dtype)
    for i in (0, 1, 25, len(catalog) - 1):
        for value in (info.min, info.max, 0, 1, len(catalog), len(text), i):
            arrays = sound | {name: sound[name].copy()}
            arrays[name][i] = value
            try:
                check_index(arrays, text)
            except CatalogError:
                refused += 1
                continue
            segments = StoredSegments(text, arrays)
            for segment in catalog.segments:
                segments.find(segment.id)
    assert refused > 0


def test_cycles_of_parents_are_refused(catalog: Catalog) -> None:
    lines = [f"{store.segment_line(segment)}\n".encode() for segment in catalog.segments]
    arrays = index_arrays(catalog.segments, lines, catalog.parent)
    arrays["parent"] = np.full(len(catalog), -1, np.int32)
    check_index(arrays, b"".join(lines))
    arrays["parent"][[4, 9]] = 9, 4
    with pytest.raises(CatalogError, match="a cycle of parents"):
        check_index(arrays, b"".join(lines))


def test_forged_lines_are_told_when_they_are_asked_for() -> None:
    lines = [b'{"id":"a","path":["A"]}\n', b"nonsense\n", b'{"id":"c"}\n', b"[]\n"]
    arrays = index_arrays([Segment(str(i), "A", ("A",)) for i in range(4)], lines, np.full(4, -1, np.int32))
    segments = StoredSegments(b"".join(lines), arrays)
    assert segments[0].id == "a"
    for i in (1, 2, 3):
        with pytest.raises(CatalogError, match="no segment at byte"):
            segments[i]


def test_array_files(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(5, dtype=np.int32),
        "b": np.zeros(0, np.int64),
        "c": np.array([1.5, -0.0], np.float32),
        "d": np.array([0, (1 << 64) - 1], np.uint64),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_bytes(arrays, {"k": "v"}))
    metadata, loaded = map_arrays(path, ("a", "b", "c", "d"))
    assert metadata["k"] == "v"
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].tobytes() == array.tobytes()
        assert not len(array) or not loaded[name].flags.writeable
    with pytest.raises(CatalogError, match="cannot be read"):
        map_arrays(path, ("a", "missing"))
    path.write_bytes(file_bytes({"a": np.zeros((2, 2), np.int32)}, {}))
    with pytest.raises(CatalogError, match="expected a vector"):
        map_arrays(path, ("a",))
