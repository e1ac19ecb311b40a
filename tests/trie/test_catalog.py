"""Catalogs: invariants, the tree of segments, and the version."""

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.trie.catalog import Catalog, Segment, with_descendants


def segment(id: str, path: str, **fields: object) -> Segment:
    tiers = tuple(path.split(" > "))
    return Segment(id, tiers[-1], tiers, **fields)  # type: ignore[arg-type]


SEGMENTS = [
    segment("b", "Sports > Soccer > Clubs"),
    segment("a", "Sports"),
    segment("c", "Sports > Soccer"),
    segment("d", "Pets"),
    segment("e", "Pets > Birds > Small > Finches"),
]


def test_parents_are_found_in_any_order_and_over_missing_tiers() -> None:
    catalog = Catalog("test", SEGMENTS)
    assert catalog.parent.tolist() == [2, -1, 1, -1, 3]
    assert catalog.parent.dtype == np.int32


def test_descendants_include_the_segment_itself() -> None:
    catalog = Catalog("test", SEGMENTS)
    assert catalog.descendants(1).tolist() == [0, 1, 2]
    assert catalog.descendants(0).tolist() == [0]
    assert catalog.descendants(3).tolist() == [3, 4]


def test_descendants_of_a_mask_equal_brute_force() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        count = int(rng.integers(1, 40))
        parent = np.array([rng.integers(-1, i) if i else -1 for i in range(count)], np.int32)
        order = rng.permutation(count)
        shuffled = np.full(count, -1, np.int32)
        for i, above in enumerate(parent):
            shuffled[order[i]] = order[above] if above >= 0 else -1
        mask = rng.random(count) < 0.2
        expected = []
        for i in range(count):
            node, found = i, False
            while node >= 0:
                found |= bool(mask[node])
                node = int(shuffled[node])
            expected.append(found)
        assert with_descendants(mask, shuffled).tolist() == expected


def test_index_path_text_and_tiers() -> None:
    catalog = Catalog("test", SEGMENTS, cattax=9)
    assert catalog.index("c") == 2
    assert "c" in catalog
    assert "x" not in catalog
    assert catalog.path_text(0) == "Sports > Soccer > Clubs"
    assert catalog.tier1 == ("Sports", "Pets")
    assert catalog.cattax == 9
    assert len(catalog) == 5
    with pytest.raises(KeyError):
        catalog.index("x")


def test_the_version_follows_from_segments_and_their_order_alone() -> None:
    version = Catalog("test", SEGMENTS).version
    assert len(version) == 16
    assert int(version, 16) >= 0
    assert Catalog("other", SEGMENTS, cattax=3).version == version
    for changed in (
        SEGMENTS[::-1],
        SEGMENTS[:-1],
        [*SEGMENTS[:-1], segment("f", "Pets > Birds > Small > Finches")],
        [*SEGMENTS[:-1], segment("e", "Pets > Birds > Small > Finch")],
        [*SEGMENTS[:-1], segment("e", "Pets > Birds > Small > Finches", sensitive=True)],
        [*SEGMENTS[:-1], segment("e", "Pets > Birds > Small > Finches", keywords=("bird",))],
    ):
        assert Catalog("test", changed).version != version


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no segments"),
        ([segment("a", "A"), segment("a", "B")], "two segments have the id 'a'"),
        ([segment("a", "A"), segment("b", "A")], "two segments have the path 'A'"),
        # Different tiers, the same text: the model could not tell them apart.
        ([Segment("a", "A > B", ("A > B",))], "holds the separator"),
        ([segment("", "A")], "empty id"),
        ([Segment("a", "", ())], "empty path"),
        ([Segment("a", "", ("A", ""))], "empty name at tier 2"),
        ([Segment("a", "B", ("A",))], "is not the last tier"),
        ([Segment("a", " A", (" A",))], "not normalised"),
        ([Segment("a", "A\0", ("A\0",))], r"U\+0000"),
        ([Segment("a", "\ud800", ("\ud800",))], r"U\+D800"),
        ([segment("a", "A", keywords=("x\ny",))], r"keyword holds the character U\+000A"),
        ([segment("a", "A", keywords=("x",) * 101)], "101 keywords"),
        ([segment("a" * 129, "A")], "id of 129 characters"),
        ([segment("a", "A" * 201)], "name at tier 1 of 201 characters"),
        ([segment("a", " > ".join("ABCDEFGHIJKLMNOPQ"))], "path of 17 tiers"),
    ],
)
def test_what_a_catalog_may_not_hold(bad: list[Segment], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Catalog("test", bad)


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "a" * 65, "ä", "a\n", "."])
def test_bad_names(name: str) -> None:
    with pytest.raises(CatalogError, match="expected 1 to 64"):
        Catalog(name, SEGMENTS)
