"""Trees over flat lists: known groups are found, none is too large, nothing is lost."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from bidtrie.errors import CatalogError
from bidtrie.trie.catalog import MAX_TIER_LENGTH, Catalog, Segment
from bidtrie.trie.cluster import cluster_segments
from bidtrie.trie.cluster_kmeans import split
from bidtrie.trie.cluster_vectors import COLUMNS, text_vectors

from bench.synthetic_catalog import synthetic_segments

TOPICS = {
    "shoes": ("running trail leather walking kids suede", "laces polish insoles sizes rack"),
    "coffee": ("espresso iced decaf roasted instant arabica", "beans grinder mug filter machine"),
    "mortgage": (
        "fixed variable reverse jumbo interest bridging",
        "rates calculator broker refinance lender",
    ),
    "guitar": ("acoustic bass electric classical vintage resonator", "strings lessons amp tuner chords"),
}


def toy() -> tuple[list[Segment], list[str]]:
    """120 keywords of four topics that share no words, in random order, and each one's topic."""
    pairs = [
        (f"{before} {topic} {after}", topic)
        for topic, (befores, afters) in TOPICS.items()
        for before in befores.split()
        for after in afters.split()
    ]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [flat(i, pairs[i][0]) for i in order], [pairs[i][1] for i in order]


def flat(number: int, text: str, **fields: object) -> Segment:
    return Segment(f"kw{number}", text, (text,), **fields)  # type: ignore[arg-type]


def sizes(segments: tuple[Segment, ...]) -> Counter[tuple[str, ...]]:
    return Counter(segment.path[:-1] for segment in segments)


def children(segments: tuple[Segment, ...]) -> dict[tuple[str, ...], set[str]]:
    found = defaultdict(set)
    for segment in segments:
        for tier in range(len(segment.path)):
            found[segment.path[:tier]].add(segment.path[tier])
    return found


def purity(groups: list[tuple[str, ...]], topics: list[str]) -> float:
    """The share of keywords whose topic is their group's most frequent one."""
    held = defaultdict(Counter)
    for group, topic in zip(groups, topics, strict=True):
        held[group][topic] += 1
    return sum(max(counts.values()) for counts in held.values()) / len(topics)


def test_well_separated_topics_are_found_and_named() -> None:
    segments, topics = toy()
    clustered = cluster_segments(segments, largest=40)
    groups = [segment.path[:1] for segment in clustered]
    assert purity(groups, topics) > 0.95
    # Each group's name is made of words of its topic.
    for (name,), topic in zip(groups, topics, strict=True):
        if groups.count((name,)) > 1:
            before, after = TOPICS[topic]
            assert set(name.split(", ")) <= {topic, *before.split(), *after.split()}
    # The control: groups of the same sizes that ignore the texts are mixed.
    shuffled = [groups[i] for i in np.random.default_rng(1).permutation(len(groups))]
    assert purity(shuffled, topics) < 0.6


def test_ids_texts_and_order_stay_and_every_keyword_is_there_once() -> None:
    segments, _ = toy()
    segments[3] = flat(900, "Größe/nix", keywords=("a", "b"), sensitive=True)
    clustered = cluster_segments(segments, largest=10)
    assert [(s.id, s.name, s.keywords, s.sensitive) for s in clustered] == [
        (s.id, s.name, s.keywords, s.sensitive) for s in segments
    ]
    assert all(s.path[-1] == s.name and len(s.path) > 1 for s in clustered)
    assert len(Catalog("test", clustered)) == len(segments)
    # No keyword is above another: blocking one blocks no other.
    assert (Catalog("test", clustered).parent == -1).all()


@pytest.mark.parametrize("largest", [4, 17, 100])
def test_groups_are_bounded_and_the_tree_is_wide_at_the_top(largest: int) -> None:
    segments = [flat(i, s.name) for i, s in enumerate({s.name: s for s in synthetic_segments(4000)}.values())]
    clustered = cluster_segments(segments, largest=largest)
    held = sizes(clustered)
    assert max(held.values()) <= largest
    assert sum(held.values()) == len(segments)
    groups = children(clustered)
    inner = {path: names for path, names in groups.items() if path not in held}
    assert len(groups[()]) <= 128
    assert all(len(names) <= 16 for path, names in inner.items() if path)
    assert len(groups[()]) > 16
    # A path ends in a group of keywords or leads to groups, never both.
    assert not any(path[:-1] in held for path in held)


def test_it_is_deterministic_and_follows_the_seed() -> None:
    segments, _ = toy()
    once = cluster_segments(segments, largest=10)
    assert cluster_segments(list(segments), largest=10) == once
    assert cluster_segments(segments, largest=10, seed=1) != once


def test_a_list_that_fits_into_one_group_stays_flat() -> None:
    segments = [flat(i, f"word{i}") for i in range(50)]
    assert cluster_segments(segments, largest=50) == tuple(segments)
    assert cluster_segments(segments[:1]) == tuple(segments[:1])


@pytest.mark.parametrize(
    "texts",
    [
        # Equal vectors: upper and lower case, and plurals.
        ["".join(c.upper() if i >> n & 1 else c for n, c in enumerate("shoelacesx")) for i in range(700)],
        # No words at all.
        ["!" * i for i in range(1, 190)],
        # Nothing in common, and names that are hard to make.
        ["x" * (200 - i % 3) if i < 3 else chr(0x4E00 + i) * 150 + str(i) for i in range(150)],
        ["a " * i + "b" for i in range(60)],
    ],
    ids=["equal", "symbols", "long", "stop words"],
)
def test_texts_that_tell_nothing(texts: list[str]) -> None:
    segments = [flat(i, text[:200].strip()) for i, text in enumerate(texts)]
    segments = list({segment.name: segment for segment in segments}.values())
    clustered = cluster_segments(segments, largest=12)
    assert max(sizes(clustered).values()) <= 12
    assert len(Catalog("test", clustered)) == len(segments)
    for names in children(clustered).values():
        assert len({name.casefold() for name in names}) >= len(names) - 12
        assert all(0 < len(name) <= MAX_TIER_LENGTH for name in names)


def test_progress_ends_with_all() -> None:
    segments, _ = toy()
    shares: list[float] = []
    cluster_segments(segments, largest=5, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_bad_input() -> None:
    with pytest.raises(CatalogError, match="segment 2, 'b', has 2 tiers: only flat lists are clustered"):
        cluster_segments([flat(1, "A"), Segment("b", "C", ("B", "C"))])
    with pytest.raises(CatalogError, match="groups of at most 3 keywords: expected at least 4"):
        cluster_segments([flat(1, "A")], largest=3)


def test_vectors_equal_the_formula() -> None:
    """TF-IDF of words and of words' trigrams, in float64 and with names instead of hashes."""
    texts = ["running shoes", "Shoe rack", "run", "running running", "..."]
    rows = text_vectors(texts)
    dense = np.zeros((len(texts), COLUMNS))
    np.add.at(dense, (rows.row_of_entries(), rows.column), rows.weight)
    held = [{"running", "shoe"}, {"shoe", "rack"}, {"run"}, {"running"}, set()]

    def features(word: str) -> dict[str, float]:
        grams = [f"^{word}$"[i : i + 3] for i in range(len(word))]
        weights = defaultdict(float, {f"word {word}": 1.0})
        for gram in grams:
            weights[gram] += 0.5 / np.sqrt(len(grams))
        return weights

    counted = [Counter() for _ in texts]
    for document, found in zip(counted, held, strict=True):
        for word in found:
            for name, weight in features(word).items():
                document[name] += weight
    holding = Counter(name for document in counted for name in document)
    named = np.zeros((len(texts), len(holding)))
    for row, document in enumerate(counted):
        for column, name in enumerate(holding):
            idf = np.log((1 + len(texts)) / (1 + holding[name])) + 1
            named[row, column] = document[name] * idf
    length = np.linalg.norm(named, axis=1, keepdims=True)
    named /= np.where(length > 0, length, 1)
    np.testing.assert_allclose(dense @ dense.T, named @ named.T, atol=1e-6)
    assert (dense @ dense.T)[0, 1] > 0.2 > (dense @ dense.T)[1, 2]


def test_splits_keep_to_their_limits() -> None:
    texts = [segment.name for segment in synthetic_segments(900)]
    vectors = text_vectors(texts)
    for groups, share in ((2, 1.5), (3, 1.5), (7, 2.0), (40, 2.0)):
        rows = np.arange(5, 900, 2)
        parts = split(vectors, rows, groups, np.random.default_rng(0))
        assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
        assert 2 <= len(parts) <= groups
        assert max(map(len, parts)) <= np.ceil(share * len(rows) / groups)
        assert all((np.diff(part) > 0).all() for part in parts)


def test_similar_texts_come_together() -> None:
    """The similarity within groups is near to that of the best of many random starts, and far above chance."""
    segments, _ = toy()
    vectors = text_vectors([segment.name for segment in segments])
    rows = np.arange(len(segments))
    dense = np.zeros((len(rows), COLUMNS))
    np.add.at(dense, (vectors.row_of_entries(), vectors.column), vectors.weight)

    def cohesion(parts: list[np.ndarray]) -> float:
        return sum(float(np.linalg.norm(dense[part].sum(axis=0))) for part in parts) / len(rows)

    found = [cohesion(split(vectors, rows, 6, np.random.default_rng(seed))) for seed in range(6)]
    chance = cohesion(np.array_split(np.random.default_rng(0).permutation(rows), 6))
    assert min(found) > 0.9 * max(found)
    assert min(found) > chance + 0.1


def test_the_file_of_a_list(tmp_path: Path) -> None:
    from bidtrie.trie.sources import SourceFormat, read_source

    file = tmp_path / "list.txt"
    file.write_text("running shoes\n\n  Coffee   beans \nrunning shoes\n")
    with pytest.raises(CatalogError, match=r"line 4: the id 'running shoes' is that of line 1 too"):
        read_source(file, SourceFormat.LIST)
    file.write_text("running shoes\n\n  Coffee   beans \n")
    source = read_source(file, SourceFormat.LIST)
    assert [(s.id, s.path) for s in source.segments] == [
        ("running shoes", ("running shoes",)),
        ("Coffee beans", ("Coffee beans",)),
    ]
