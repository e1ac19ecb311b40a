"""The lexical retriever against BM25 written out in float64, and its promises."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bidtrie.retrieval import lexical
from bidtrie.retrieval.lexical import LexicalRetriever, field_weights
from bidtrie.retrieval.words import words
from bidtrie.trie.catalog import Catalog, Segment
from hypothesis import given
from hypothesis import strategies as st

WORDS = [
    "car",
    "auto",
    "tyre",
    "loan",
    "bank",
    "garden",
    "plant",
    "fish",
    "bird",
    "soccer",
    "club",
    "shoe",
    "paint",
]


def segment(id: str, path: str, *keywords: str) -> Segment:
    tiers = tuple(path.split(" > "))
    return Segment(id, tiers[-1], tiers, keywords)


SHOP = Catalog(
    "shop",
    [
        segment("cars", "Automotive"),
        segment("suv", "Automotive > SUVs", "sport utility vehicle"),
        segment("ins", "Automotive > Car Insurance"),
        segment("fin", "Finance"),
        segment("home", "Finance > Home Insurance"),
        segment("garden", "Garden > Gardening"),
    ],
)


def random_catalog(seed: int, count: int) -> Catalog:
    rng = np.random.default_rng(seed)
    paths: dict[tuple[str, ...], None] = {}
    while len(paths) < count:
        tiers = (" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(rng.integers(1, 4)))
        paths[tuple(tiers)] = None
    return Catalog(
        "random",
        [
            Segment(
                str(i), path[-1], path, tuple(rng.choice(WORDS, rng.integers(0, 3), replace=False).tolist())
            )
            for i, path in enumerate(paths)
        ],
    )


def bm25(documents: list[dict[str, float]], query: dict[str, float], k1: float, b: float) -> list[float]:
    """The formula as it stands in the books, in float64, document by document."""
    count = len(documents)
    mean = sum(sum(document.values()) for document in documents) / count
    scores = []
    for document in documents:
        length = sum(document.values())
        score = 0.0
        for word, weight in query.items():
            if word in document:
                holding = sum(word in other for other in documents)
                rarity = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
                f = document[word]
                score += weight * rarity * f * (k1 + 1) / (f + k1 * (1 - b + b * length / mean))
        scores.append(score)
    return scores


def reference(catalog: Catalog, query: str) -> list[float]:
    """Both BM25s for a query whose words are all known."""
    documents: list[dict[str, float]] = []
    branches: dict[str, dict[str, float]] = {}
    for each in catalog.segments:
        document: dict[str, float] = {}
        for weight, texts in ((1.0, [each.name]), (0.7, each.keywords), (0.5, each.path[:-1])):
            for text in texts:
                for word in words(text):
                    document[word] = document.get(word, 0.0) + weight
        documents.append(document)
        branch = branches.setdefault(each.path[0], {})
        for word in document:
            branch[word] = branch.get(word, 0.0) + 1
    asked = {word: 1 + math.log(count) for word, count in Counter(words(query)).items()}
    own = bm25(documents, asked, 1.2, 0.75)
    shared = dict(zip(branches, bm25(list(branches.values()), asked, 1.2, 0.0), strict=True))
    return [score + 0.5 * shared[s.path[0]] for score, s in zip(own, catalog.segments, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_the_formula(seed: int) -> None:
    catalog = random_catalog(seed, 60)
    retriever = LexicalRetriever(catalog)
    rng = np.random.default_rng(seed)
    known = sorted(set().union(*(field_weights(s) for s in catalog.segments)))
    for _ in range(20):
        query = " ".join(rng.choice(known, rng.integers(1, 12)))
        scores = retriever.scores(query)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, reference(catalog, query), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["K1", "B", "BRANCH_B", "BRANCH_WEIGHT", "OWN_WEIGHT", "ANCESTOR_WEIGHT", "KEYWORD_WEIGHT"]
)
def test_the_comparison_notices_a_changed_constant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = random_catalog(0, 60)
    query = " ".join(WORDS)
    monkeypatch.setattr(lexical, name, getattr(lexical, name) + 0.01)
    assert np.abs(LexicalRetriever(catalog).scores(query) - reference(catalog, query)).max() > 1e-4


def ids(found: list[tuple[int, float]]) -> list[str]:
    return [SHOP.segments[i].id for i, _ in found]


def test_own_names_count_more_than_those_above() -> None:
    retriever = LexicalRetriever(SHOP)
    assert ids(retriever.shortlist("Automotive", 3))[0] == "cars"
    assert ids(retriever.shortlist("Which SUV should you buy?", 1)) == ["suv"]
    assert ids(retriever.shortlist("a utility vehicle", 1)) == ["suv"]


def test_words_of_one_branch_support_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Insurance stands in two branches; the SUV says which one is meant."""
    scores = LexicalRetriever(SHOP).scores("insurance for suvs")
    assert scores[2] > scores[4]
    monkeypatch.setattr(lexical, "BRANCH_WEIGHT", 0.0)
    scores = LexicalRetriever(SHOP).scores("insurance for suvs")
    assert scores[2] == scores[4]


def test_unknown_words_find_similar_ones() -> None:
    retriever = LexicalRetriever(SHOP)
    assert ids(retriever.shortlist("the gardener's handbook", 1)) == ["garden"]
    assert 0 < retriever.scores("gardener")[5] < retriever.scores("gardening")[5]


def test_nothing_in_common_is_not_shortlisted() -> None:
    retriever = LexicalRetriever(SHOP)
    for query in ("", "the of and", "xyzzy", "\0\t", "!" * 10_000):
        assert not retriever.scores(query).any()
        assert retriever.shortlist(query, 5) == []


def test_only_the_beginning_of_a_long_text_counts() -> None:
    retriever = LexicalRetriever(SHOP)
    flood = "w1x " * (lexical.MAX_QUERY_LENGTH // 4)
    assert retriever.scores("insurance " + flood).any()
    assert not retriever.scores(flood + " insurance").any()


def test_the_order_of_words_does_not_matter_to_the_bit() -> None:
    catalog = random_catalog(7, 80)
    retriever = LexicalRetriever(catalog)
    expected = retriever.scores(" ".join(WORDS))
    for seed in range(10):
        shuffled = np.random.default_rng(seed).permutation(WORDS)
        assert (retriever.scores(" ".join(shuffled)) == expected).all()


def test_threads_get_the_same_answers() -> None:
    catalog = random_catalog(8, 200)
    queries = [f"{a} {b}ing {a}{b}" for a in WORDS for b in WORDS]
    expected = [LexicalRetriever(catalog).shortlist(query, 10) for query in queries]
    retriever = LexicalRetriever(catalog)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: retriever.shortlist(query, 10), queries)) == expected


@given(st.text(max_size=300))
def test_any_text_gets_finite_scores(text: str) -> None:
    scores = LexicalRetriever(SHOP).scores(text)
    assert scores.shape == (6,)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
