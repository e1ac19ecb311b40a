"""The token trie against dictionaries and brute force."""

import dataclasses
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.models.load import load_checkpoint
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.trie import Trie

from bench.synthetic_catalog import synthetic_segments

NEWLINE = 10
BENCH_PAGES = sorted((Path(__file__).parents[2] / "bench" / "data").glob("pages*.tsv"))


def catalog_of(paths: list[str]) -> Catalog:
    return Catalog(
        "test", [Segment(str(i), p.split(" > ")[-1], tuple(p.split(" > "))) for i, p in enumerate(paths)]
    )


def by_bytes(text: str) -> list[int]:
    return list(text.encode())


def by_words(text: str) -> list[int]:
    """One token a word, numbered by its letters: deep sharing, many children."""
    return [1000 + sum(ord(c) * 31**i for i, c in enumerate(word)) % 100_000 for word in text.split()]


def random_catalog(rng: np.random.Generator, count: int) -> Catalog:
    letters = "ABC"
    paths: dict[str, None] = {}
    while len(paths) < count:
        tiers = ["".join(rng.choice(list(letters), rng.integers(1, 4))) for _ in range(rng.integers(1, 5))]
        paths[" > ".join(tiers)] = None
    return catalog_of(list(paths))


def built(catalog: Catalog, encode: Callable[[str], list[int]] = by_bytes) -> Trie:
    return Trie.build(catalog, encode, NEWLINE, "0" * 16)


@pytest.mark.parametrize("encode", [by_bytes, by_words])
def test_every_path_is_in_the_trie_and_nothing_else(encode: Callable[[str], list[int]]) -> None:
    rng = np.random.default_rng(1)
    for count in (1, 2, 17, 300):
        catalog = random_catalog(rng, count)
        trie = built(catalog, encode)
        expected = [(*encode(" " + catalog.path_text(i)), NEWLINE) for i in range(count)]
        prefixes = {path[:n] for path in expected for n in range(len(path) + 1)}
        found = {}
        stack: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        while stack:
            node, tokens = stack.pop()
            assert trie.depth[node] == len(tokens)
            found[tokens] = node
            for child in trie.children(node):
                assert trie.parent[child] == node
                stack.append((child, (*tokens, int(trie.token[child]))))
        assert found.keys() == prefixes
        assert len(trie) == len(prefixes)
        for i, path in enumerate(expected):
            node = found[path]
            assert trie.segment[node] == i
            assert trie.terminator_of(i) == node
            assert tuple(trie.path_tokens(i).tolist()) == path
            assert trie.path_nodes(i).tolist() == [found[path[:n]] for n in range(1, len(path) + 1)]
        assert np.count_nonzero(trie.segment >= 0) == count


def test_order_is_breadth_first_with_siblings_by_token() -> None:
    trie = built(random_catalog(np.random.default_rng(2), 200))
    assert trie.first_child[0] == 1
    assert trie.first_child[-1] == len(trie)
    assert (np.diff(trie.depth) >= 0).all()
    assert (np.diff(trie.parent) >= 0).all()
    for node in range(len(trie)):
        tokens = trie.token[trie.children(node)]
        assert (np.diff(tokens) > 0).all()
    for depth, (first, last) in enumerate(zip(trie.levels[:-1], trie.levels[1:], strict=True)):
        assert (trie.depth[first:last] == depth).all()


def test_leaves_below_a_node() -> None:
    trie = built(random_catalog(np.random.default_rng(3), 150))
    for node in range(len(trie)):
        below = [i for i in range(150) if node == 0 or node in trie.path_nodes(i)]
        assert trie.leaf_count(node) == len(below)
        assert sorted(trie.segments_below(node).tolist()) == below


def allowed_by_brute_force(
    catalog: Catalog, trie: Trie, candidates: list[int] | None, blocked: list[int]
) -> list[bool]:
    cut = {below for i in blocked for below in catalog.descendants(i).tolist()}
    segments = set(range(len(catalog)) if candidates is None else candidates) - cut
    nodes = {0} if segments else set()
    for i in segments:
        nodes.update(trie.path_nodes(i).tolist())
    return [node in nodes for node in range(len(trie))]


def test_allowed_equals_brute_force() -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        count = int(rng.integers(1, 80))
        catalog = random_catalog(rng, count)
        trie = built(catalog)
        for _ in range(5):
            candidates = None if rng.random() < 0.4 else rng.integers(0, count, rng.integers(0, 10)).tolist()
            blocked = rng.integers(0, count, rng.integers(0, 6)).tolist()
            expected = allowed_by_brute_force(catalog, trie, candidates, blocked)
            assert trie.allowed(candidates, blocked).tolist() == expected


def test_brute_force_of_allowed_notices_forgotten_descendants() -> None:
    catalog = catalog_of(["A", "A > B"])
    trie = built(catalog)
    assert trie.allowed(None, [0]).tolist() == allowed_by_brute_force(catalog, trie, None, [0])
    without_tree = dataclasses.replace(trie, segment_parent=np.full(2, -1, np.int32))
    assert without_tree.allowed(None, [0]).tolist() != allowed_by_brute_force(catalog, trie, None, [0])


def test_nothing_allowed() -> None:
    trie = built(catalog_of(["A", "B"]))
    assert not trie.allowed([], []).any()
    assert not trie.allowed([0], [0]).any()
    assert trie.allowed().all()


def test_a_tokenizer_without_prefix_property() -> None:
    """The tokens of "A > B" need not begin with those of "A"."""
    table = {" A": [7], " A > B": [8, 9], " A > BC": [8, 9, 5]}
    trie = built(catalog_of(["A", "A > B", "A > BC"]), lambda text: table[text])
    assert trie.token[trie.children(0)].tolist() == [7, 8]
    assert [trie.path_tokens(i).tolist() for i in range(3)] == [[7, 10], [8, 9, 10], [8, 9, 5, 10]]
    # Blocking goes by the catalog's tree, not by the tokens.
    assert not trie.allowed(None, [0]).any()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({" A": [1], " B": []}, "makes no tokens of the path 'B'"),
        ({" A": [1], " B": [2, NEWLINE, 3]}, "the path 'B' holds the token 10"),
        ({" A": [1], " B": [1]}, "same tokens of the paths 'A' and 'B'"),
        ({" A": [1], " B": [-5]}, "impossible token ids of 'B'"),
        ({" A": [1], " B": [1 << 31]}, "impossible token ids of 'B'"),
    ],
)
def test_tokens_that_make_no_trie(table: dict[str, list[int]], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        built(catalog_of(["A", "B"]), lambda text: table[text])


def test_a_node_takes_less_than_40_bytes_on_disk_and_in_memory(smollm2_path: Path) -> None:
    """Every array of the trie, stored or derived, those of the segments and a prior of all nodes included."""
    tokenizer = load_checkpoint(smollm2_path).tokenizer
    catalog = Catalog("test", synthetic_segments(3000))
    trie = Trie.build(catalog, tokenizer.encode, NEWLINE, tokenizer.content_hash)
    arrays = [value for value in vars(trie).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 11, "a new array: say what it costs"
    assert all(array.itemsize == 4 for array in arrays)
    prior = 4 * len(trie)
    total = sum(array.nbytes for array in arrays) + prior
    assert total / len(trie) < 40
    # Nothing else of any size hangs on it.
    others = [value for value in vars(trie).values() if not isinstance(value, np.ndarray)]
    assert sum(sys.getsizeof(value) for value in others) < 4096


def test_large_token_ids_keep_their_order() -> None:
    top = (1 << 31) - 1
    trie = Trie.build(
        catalog_of(["A", "B", "C"]), lambda text: {" A": [top], " B": [0], " C": [top - 1]}[text], 5, "0" * 16
    )
    assert trie.token[trie.children(0)].tolist() == [0, top - 1, top]


def test_every_damage_of_the_arrays_is_noticed_or_harmless() -> None:
    """Change one entry at a time: the trie is refused, or it is still a trie over the same segments."""
    catalog = random_catalog(np.random.default_rng(6), 12)
    trie = built(catalog)
    refused = accepted = 0
    for name in ("first_child", "token", "segment"):
        array = getattr(trie, name)
        for i in range(len(array)):
            for value in (
                -(1 << 31),
                -2,
                -1,
                0,
                1,
                NEWLINE,
                int(array[i]) + 1,
                int(array[i]) - 1,
                (1 << 31) - 1,
            ):
                if value == array[i]:
                    continue
                damaged = array.copy()
                damaged[i] = value
                try:
                    other = dataclasses.replace(trie, **{name: damaged})
                except CatalogError:
                    refused += 1
                    continue
                accepted += 1
                for segment in range(12):
                    nodes = [0, *other.path_nodes(segment).tolist()]
                    assert all(node in other.children(above) for above, node in pairwise(nodes))
                    assert other.segment[nodes[-1]] == segment
    assert refused > accepted > 0


def test_arrays_of_wrong_length_or_type_are_refused() -> None:
    trie = built(catalog_of(["A", "B > C"]))
    for changes in (
        {"first_child": trie.first_child[:-1]},
        {"token": trie.token[:-1]},
        {"segment": trie.segment[:0]},
        {"token": trie.token.astype(np.int64)},
        {"segment_parent": np.full(3, -1, np.int32)},
        {"terminator": 11},
    ):
        with pytest.raises(CatalogError, match="token trie"):
            dataclasses.replace(trie, **changes)


def test_figures_that_the_documentation_states(smollm2_path: Path) -> None:
    """IAB Content Taxonomy 3.1 (its paths are all in the evaluation pages) with SmolLM2's tokenizer."""
    tokenizer = load_checkpoint(smollm2_path).tokenizer
    text = "".join(file.read_text(encoding="utf-8") for file in BENCH_PAGES)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    paths = {path: None for line in lines for path in line.split("\t")[0].split("|")}
    catalog = catalog_of(list(paths))
    assert len(catalog) == 704
    trie = Trie.build(catalog, tokenizer.encode, tokenizer.encode("\n")[-1], tokenizer.content_hash)
    competing = [i for i in range(704) if len(trie.children(int(trie.parent[trie.terminator_of(i)]))) > 1]
    assert len(competing) == 87
    for i in range(704):
        if catalog.parent[i] >= 0:
            above = trie.path_tokens(int(catalog.parent[i]))[:-1]
            assert trie.path_tokens(i)[: len(above)].tolist() == above.tolist()
