"""The numbers rule against its definition on whole texts."""

import pytest
from bidtrie.creative.numbers import NumberRule, figures
from bidtrie.creative.vocabulary import Vocabulary
from creative.fakes import NASTY, FakeTokenizer
from hypothesis import given
from hypothesis import strategies as st

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY = Vocabulary(TOKENIZER)
FACTS = ["20% off until 5 pm", "only $4.99, was $10", "24/7", "1,000 songs", "B12", "version 2.0."]
RULE = NumberRule(VOCABULARY, FACTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20% off", ["20%"]),
        ("$4.99, now", ["$4.99"]),
        ("1,000.", ["1,000"]),
        ("24/7 and 5G", ["24", "7", "5"]),
        ("4..5 .5", ["4", ".5", ".5"]),
        ("½ price, 3² m, 10 €", ["½", "3²", "10", "€"]),
        ("no figures.", []),
    ],
)
def test_figures(text: str, expected: list[str]) -> None:
    assert figures(text) == expected


@pytest.mark.parametrize("text", ["20% off", "$4.99", "24/7", "at 5.", "1,000, yes", "B12", "7/24", "2.0."])
def test_texts_with_the_inputs_figures_are_open_and_complete(text: str) -> None:
    assert RULE.is_open(text)
    assert RULE.is_complete(RULE.tail(text))


@pytest.mark.parametrize(
    "text", ["20 ", "200", "20% 30", "$4.9 ", "$10.5", "4.99", "10%", "1000", "½", "$", "% ", ".5"]
)
def test_other_figures_are_not(text: str) -> None:
    assert not (RULE.is_open(text) and RULE.is_complete(RULE.tail(text)))


def test_a_begun_figure_is_open_but_not_complete() -> None:
    for text in ("for $4", "for $4.", "1,0", "1,00", "20", "2"):
        assert RULE.is_open(text), text
        assert not RULE.is_complete(RULE.tail(text)), text


def legal(text: str, whole: set[str]) -> bool:
    """The definition: every figure is one of the input's."""
    return all(figure in whole for figure in figures(text))


@given(st.text(alphabet="0123459$%., xB", max_size=12))
def test_masks_let_exactly_the_legal_texts_through(text: str) -> None:
    """Character by character with the masks, against the definition on the whole text."""
    whole = {figure for fact in FACTS for figure in figures(fact)}
    tail, passed = "", True
    for character in text:
        if not RULE.mask(tail)[TOKENIZER.id_of(character.encode())]:
            passed = False
            break
        tail = RULE.tail(tail + character)
    passed = passed and RULE.is_complete(tail)
    assert passed == legal(text, whole)


def test_without_figures_in_the_input_there_are_none_in_the_text() -> None:
    mask = NumberRule(VOCABULARY, ["no figures here"]).mask("")
    assert not (mask & VOCABULARY.numeric).any()
    assert mask[~VOCABULARY.numeric].all()


def test_tokens_of_several_characters() -> None:
    mask = RULE.mask("")
    assert mask[TOKENIZER.id_of(b"$4.99")]
    assert mask[TOKENIZER.id_of(b"20%")]
    assert not mask[TOKENIZER.id_of(b" 3")]
    after = RULE.mask("$4")
    assert after[TOKENIZER.id_of(b".99")]
    assert not after[TOKENIZER.id_of(b"...")]
    assert not after[TOKENIZER.id_of(b" the")]
    assert not after[TOKENIZER.id_of(b"\xe2\x82\xac")]
