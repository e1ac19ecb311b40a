"""Words, stems and similar spelling."""

import pytest
from bidtrie.retrieval.spelling import SimilarWords, spelling_arrays
from bidtrie.retrieval.words import stem, words, words_as_written
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How to fix the SUVs' brakes, and why", ["fix", "suv", "brake"]),
        ("Women's shoes; the dog\u2019s bowl", ["women", "shoe", "dog", "bowl"]),
        ("Café MÜNCHEN \uff21\uff22", ["cafe", "munchen", "ab"]),
        ("R&B, sci-fi_and C3PO 4x4", ["r", "b", "sci", "fi", "c3po", "4x4"]),
        ("車の保険", ["車の保険"]),
        ("... \t\n !", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("shoes", "shoe"), ("hobbies", "hobby"), ("boxes", "boxe"), ("zombies", "zomby"), ("news", "new"),
        ("glass", "glass"), ("virus", "virus"), ("trees", "tree"), ("gas", "gas"), ("car", "car"), ("", ""),
    ],
)  # fmt: skip
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected


@given(st.text(max_size=200))
def test_words_of_any_text_are_stable(text: str) -> None:
    found = words(text)
    assert all(found)
    assert words(text.upper().lower()) == words(text.upper().lower().upper().lower())


def dice(one: str, other: str) -> float:
    a, b = ({f"^{w}$"[i : i + 3] for i in range(len(w))} for w in (one, other))
    return 2 * len(a & b) / (len(a) + len(b))


def similar_words(vocabulary: list[str], least: float) -> SimilarWords:
    return SimilarWords(len(vocabulary), spelling_arrays(vocabulary), least)


def test_words_with_the_way_they_are_written() -> None:
    text = "The SUVs' Brakes: Café, café and R&B"
    pairs = [("suv", "SUVs"), ("brake", "Brakes"), ("cafe", "Café"), ("cafe", "café"), ("r", "R"), ("b", "B")]
    assert words_as_written(text) == pairs


def test_nearest_word_equals_brute_force() -> None:
    vocabulary = [
        "gardening",
        "garden",
        "parking",
        "parenting",
        "insurance",
        "assurance",
        "auto",
        "automotive",
    ]
    similar = similar_words(vocabulary, least=0.5)
    for word in [
        "gardener",
        "gardens",
        "insured",
        "automobile",
        "parkings",
        "reassurance",
        "zzzzzz",
        "autos",
    ]:
        best = max(range(len(vocabulary)), key=lambda i: (dice(word, vocabulary[i]), -i))
        expected = dice(word, vocabulary[best])
        found = similar.nearest(word)
        if expected < 0.5:
            assert found is None
        else:
            assert found == (best, pytest.approx(expected))


def test_short_and_strange_words_have_no_similar_word() -> None:
    similar = similar_words(["card", "care"], least=0.1)
    assert similar.nearest("car") is None
    assert similar.nearest("") is None
    assert similar_words([], least=0.1).nearest("something") is None
