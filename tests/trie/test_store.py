"""Catalogs and tries on disk: what is saved comes back, and damage is noticed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.trie import store
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.store import (
    catalog_folder,
    describe_catalog,
    list_catalogs,
    load_catalog,
    load_or_build_trie,
    load_trie,
    save_catalog,
    save_trie,
    stored_tokenizers,
    trie_path,
)
from bidtrie.trie.trie import Trie

HASH = "0123456789abcdef"
NEWLINE = 10


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path))
    return tmp_path


def by_bytes(text: str) -> list[int]:
    return list(text.encode())


def catalog_of(*paths: str, name: str = "shop") -> Catalog:
    tiers = [tuple(path.split(" > ")) for path in paths]
    return Catalog(
        name,
        [Segment(f"id{i}", t[-1], t, ("kéy", "word") if i else (), i == 1) for i, t in enumerate(tiers)],
        cattax=500,
    )


SHOP = catalog_of("Shoes", "Shoes > Running", "Hüte")


def test_round_trip(home: Path) -> None:
    folder = save_catalog(SHOP, "made here")
    assert folder == home / "catalogs" / "shop" == catalog_folder("shop")
    for key in ("shop", folder):
        loaded = load_catalog(key)
        assert loaded.segments == SHOP.segments
        assert (loaded.name, loaded.version, loaded.cattax) == ("shop", SHOP.version, 500)
    assert describe_catalog(folder) == {
        "format": 1,
        "version": SHOP.version,
        "cattax": 500,
        "source": "made here",
        "segments": 3,
        "tiers": [2, 1],
    }
    assert {path.name for path in folder.iterdir()} == {"catalog.json", "segments.jsonl", "index.safetensors"}


def test_names_are_listed_in_order() -> None:
    assert list_catalogs() == []
    for name in ("b", "a"):
        save_catalog(catalog_of("A", name=name), "test")
    (catalog_folder("a").parent / "empty").mkdir()
    (catalog_folder("a").parent / ".a.partial").mkdir()
    assert list_catalogs() == ["a", "b"]


def test_replacing_takes_everything_of_the_old_one_away() -> None:
    folder = save_catalog(SHOP, "one")
    save_trie(folder, Trie.build(SHOP, by_bytes, NEWLINE, HASH))
    other = catalog_of("Cars")
    save_catalog(other, "two")
    assert load_catalog("shop").version == other.version
    assert {path.name for path in folder.iterdir()} == {"catalog.json", "segments.jsonl", "index.safetensors"}
    assert [path.name for path in folder.parent.iterdir()] == ["shop"]


def test_what_is_the_same_stays_with_what_was_prepared_in_it() -> None:
    folder = save_catalog(SHOP, "one")
    save_trie(folder, Trie.build(SHOP, by_bytes, NEWLINE, HASH))
    save_catalog(SHOP, "one")
    assert stored_tokenizers(folder) == [HASH]
    # Damage is mended, though the description is the same.
    text = (folder / "segments.jsonl").read_bytes()
    (folder / "segments.jsonl").write_bytes(text.replace(b"Shoes", b"Shoos"))
    save_catalog(SHOP, "one")
    assert (folder / "segments.jsonl").read_bytes() == text
    # Another source is written down.
    save_catalog(SHOP, "two")
    assert describe_catalog(folder)["source"] == "two"
    assert stored_tokenizers(folder) == []


def fail_write(path: Path, data: bytes) -> None:
    raise OSError("disk full")


def rename_failing_the_second_time() -> Callable[[Path, Path], Path]:
    rename, calls = Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("disk full")
        return rename(self, target)

    return fail


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_failure_leaves_the_old_catalog(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_catalog(SHOP, "one")
    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(store, "write_atomically", fail_write)
        else:
            # The first rename puts the old catalog aside, the second would put the new one in its place.
            patch.setattr(Path, "rename", rename_failing_the_second_time())
        with pytest.raises(CatalogError, match=r"cannot be written.*disk full"):
            save_catalog(catalog_of("Cars"), "two")
    assert load_catalog("shop").segments == SHOP.segments
    assert [path.name for path in folder.parent.iterdir()] == ["shop"]


def test_missing_and_badly_named_catalogs() -> None:
    save_catalog(SHOP, "one")
    with pytest.raises(CatalogError, match=r"no catalog 'other' in .* \(there: shop\)"):
        load_catalog("other")
    for name in ("../shop", "/etc", "", "shop/"):
        with pytest.raises(CatalogError, match="expected 1 to 64"):
            load_catalog(name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("catalog.json", b"{", "damaged"),
        ("catalog.json", b"[" * 100_000, "damaged"),
        ("catalog.json", b"\xff", "damaged"),
        ("catalog.json", b"[]", "expected a catalog of format 1"),
        ("catalog.json", b'{"format": 2}', "expected a catalog of format 1"),
        ("catalog.json", b'{"format": 1, "version": 3}', "version is missing or of the wrong type"),
        ("segments.jsonl", b"", "no segments"),
        ("segments.jsonl", b'{"id": "a", "path": "A"}\n', "has the version .*: damaged or replaced"),
        ("segments.jsonl", b'{"id": "a", "path": "A"}\n' * 2, "line 2: the id 'a' is that of line 1 too"),
        ("segments.jsonl", b"\xff", "line 1: not UTF-8"),
    ],
)
def test_damaged_catalogs(file: str, content: bytes, message: str) -> None:
    folder = save_catalog(SHOP, "one")
    (folder / file).write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        load_catalog("shop")


def test_every_changed_byte_of_the_segments_is_noticed() -> None:
    folder = save_catalog(SHOP, "one")
    path = folder / "segments.jsonl"
    sound = path.read_bytes()
    for i in range(len(sound)):
        path.write_bytes(sound[:i] + bytes([sound[i] ^ 1]) + sound[i + 1 :])
        try:
            loaded = load_catalog("shop")
        except CatalogError:
            continue
        # JSON has room for changes that mean nothing, such as white space.
        assert loaded.segments == SHOP.segments


def same(one: Trie, other: Trie) -> bool:
    return all(
        np.array_equal(getattr(one, n), getattr(other, n))
        for n in ("first_child", "token", "segment", "parent")
    )


def test_a_trie_is_built_once_and_then_mapped() -> None:
    folder = save_catalog(SHOP, "one")
    built = load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH)
    assert stored_tokenizers(folder) == [HASH]

    def never(text: str) -> list[int]:
        raise AssertionError("built again")

    loaded = load_or_build_trie(folder, SHOP, never, NEWLINE, HASH)
    assert same(loaded, built)
    assert (loaded.terminator, loaded.tokenizer_hash, loaded.catalog_version) == (NEWLINE, HASH, SHOP.version)
    assert isinstance(loaded.token.base, np.memmap)
    assert not loaded.token.flags.writeable
    assert loaded.allowed([1]).tolist() == built.allowed([1]).tolist()
    assert load_trie(folder, SHOP, HASH).terminator == NEWLINE


def test_a_trie_of_something_else_is_built_again(caplog: pytest.LogCaptureFixture) -> None:
    folder = save_catalog(SHOP, "one")
    load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH)
    with pytest.raises(CatalogError, match="terminator is 10, expected 11"):
        load_trie(folder, SHOP, HASH, 11)
    cars = catalog_of("Cars", "Cars > Vans", "Boats")
    with pytest.raises(CatalogError, match="catalog_version is"):
        load_trie(folder, cars, HASH, NEWLINE)
    trie_path(folder, HASH).rename(trie_path(folder, "f" * 16))
    with pytest.raises(CatalogError, match="tokenizer_hash is"):
        load_trie(folder, SHOP, "f" * 16, NEWLINE)
    trie_path(folder, "f" * 16).rename(trie_path(folder, HASH))
    with caplog.at_level(logging.WARNING):
        assert load_or_build_trie(folder, cars, by_bytes, NEWLINE, HASH).catalog_version == cars.version
    assert "built again" in caplog.text
    assert load_trie(folder, cars, HASH, NEWLINE).catalog_version == cars.version


def test_every_damaged_byte_of_a_trie_is_noticed() -> None:
    folder = save_catalog(SHOP, "one")
    built = load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH)
    path = trie_path(folder, HASH)
    sound = path.read_bytes()
    accepted = 0
    for i in range(len(sound)):
        path.write_bytes(sound[:i] + bytes([sound[i] ^ 0x11]) + sound[i + 1 :])
        try:
            loaded = load_trie(folder, SHOP, HASH, NEWLINE)
        except CatalogError:
            continue
        accepted += 1
        assert same(loaded, built)
    assert accepted < 20
    for length in range(0, len(sound), 7):
        path.write_bytes(sound[:length])
        with pytest.raises(CatalogError):
            load_trie(folder, SHOP, HASH, NEWLINE)


def test_a_forged_trie_with_a_right_checksum_is_refused() -> None:
    """The checksum finds accidents; the arrays are checked whatever it says."""
    folder = save_catalog(SHOP, "one")
    trie = Trie.build(SHOP, by_bytes, NEWLINE, HASH)
    forged = trie.first_child.copy()
    forged[3] = 1 << 30
    object.__setattr__(trie, "first_child", forged)
    save_trie(folder, trie)
    with pytest.raises(CatalogError, match="children out of range"):
        load_trie(folder, SHOP, HASH, NEWLINE)


def test_a_damaged_trie_is_built_again() -> None:
    folder = save_catalog(SHOP, "one")
    built = load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH)
    trie_path(folder, HASH).write_bytes(b"nonsense")
    assert same(load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH), built)
    assert same(load_trie(folder, SHOP, HASH, NEWLINE), built)


def test_a_read_only_folder_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_catalog(SHOP, "one")
    monkeypatch.setattr(store, "write_atomically", fail_write)
    assert len(load_or_build_trie(folder, SHOP, by_bytes, NEWLINE, HASH)) > 1
    assert "cannot be stored" in caplog.text
    assert stored_tokenizers(folder) == []


def test_tokenizer_hashes_name_no_other_files() -> None:
    for bad in ("", "../../x", "ABCDEF0123456789", "0" * 65):
        with pytest.raises(CatalogError, match="expected 8 to 64 hexadecimal digits"):
            trie_path(catalog_folder("shop"), bad)


def test_stored_segments_are_a_source_too() -> None:
    folder = save_catalog(SHOP, "one")
    lines = (folder / "segments.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {
        "id": "id1",
        "path": ["Shoes", "Running"],
        "keywords": ["kéy", "word"],
        "sensitive": True,
    }
