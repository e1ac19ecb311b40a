"""Token tables against the texts that the tokens make."""

import pytest
from bidtrie.creative.vocabulary import Vocabulary, split_utf8
from creative.fakes import EOS, NASTY, FakeTokenizer

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY = Vocabulary(TOKENIZER)


def table(name: str, data: bytes) -> bool:
    return bool(getattr(VOCABULARY, name)[TOKENIZER.id_of(data)])


@pytest.mark.parametrize("data", [b"\n", b"\n\n", b" \n", b"\r\n", b"\r"])
def test_line_breaks_stop(data: bytes) -> None:
    assert table("stop", data)
    assert not table("legal", data)


@pytest.mark.parametrize(
    "data",
    [b"\t", b"\t\t", b"\x00", b"\x7f", b"  ", b".\n", b"\xc2\xa0", b"[", b'"', b' "', b"<br>", b"\xef\xbb\xbf",
     "\u202e".encode(), b"\xed\xa0", b"\xc0\x80", b"\xff", b"\x80"],
)  # fmt: skip
def test_what_no_text_may_hold_is_never_legal(data: bytes) -> None:
    assert not table("legal", data)
    assert not table("at_start", data)


def test_special_tokens_and_padding_are_never_legal() -> None:
    padded = Vocabulary(TOKENIZER, TOKENIZER.vocab_size + 5)
    assert padded.stop[EOS]
    assert not padded.legal[EOS]
    assert not padded.legal[-5:].any()


def test_a_character_counts_where_it_begins() -> None:
    counts = {data: int(VOCABULARY.characters[TOKENIZER.id_of(data)]) for data in NASTY}
    assert counts[b"\xf0\x9f"] == 1
    assert counts[b"\x98\x80"] == 0
    assert counts[b"\x80 and"] == 4
    assert counts["漢字".encode()] == 2
    assert counts[b"\xa9t\xc3"] == 2


def test_a_text_begins_with_a_letter_or_a_figure() -> None:
    assert all(table("at_start", data) for data in (b"a", b" the", "漢字".encode(), b" 20", b"$4.99"))
    assert not any(
        table("at_start", data) for data in (b" ", b"-", b" &", b"!", b"'s", "。".encode(), "🙂".encode())
    )


def test_words_begin_at_spaces_and_between_chinese_and_japanese_characters() -> None:
    assert all(table("starts_word", data) for data in (b" the", b" ", "漢字".encode(), "カ".encode()))
    assert not any(table("starts_word", data) for data in (b"ing", b"-", "ー".encode(), "é".encode()))
    assert table("closes_word", b"!")
    assert not table("closes_word", b"'s")


def test_an_incomplete_character_is_legal_only_if_tokens_complete_it() -> None:
    assert table("legal", b"\xf0\x9f")
    without = FakeTokenizer([b"a", b"\xf0\x9f", b"\x98", b"\xc3"])
    vocabulary = Vocabulary(without)
    assert vocabulary.legal[without.id_of(b"\xf0\x9f")], "98 98 completes it"
    assert vocabulary.legal[without.id_of(b"\xc3")]
    without = FakeTokenizer([b"a", b"\xf0\x9f", b"\x98x", b"\xc3"])
    vocabulary = Vocabulary(without)
    assert not vocabulary.legal[without.id_of(b"\xc3")], "its last byte comes with a letter only"
    assert not vocabulary.at_start[without.id_of(b"\xf0\x9f")]


def test_letters_that_are_not_latin_are_foreign() -> None:
    assert all(
        table("foreign", data)
        for data in ("漢字".encode(), "カ".encode(), b"\xc3", b" \xe2\x80", b"\xa9t\xc3")
    )
    assert not any(table("foreign", data) for data in ("é".encode(), b" the", b"-", "🙂".encode(), b"20%"))


def test_bytes_that_continue_a_character() -> None:
    after = VOCABULARY.continuing(b"\xf0\x9f", False)
    legal = {TOKENIZER.token_bytes(int(i)) for i in after.nonzero()[0]}
    assert b"\x98\x80" in legal
    assert b"\x98" in legal
    assert b"\x80" in legal
    assert b"a" not in legal
    # U+10FFFF is the last character, U+0080 a control, U+00B2 a numeral.
    assert not VOCABULARY.continuing(b"\xf4", False)[TOKENIZER.id_of(b"\x90")]
    controls = VOCABULARY.continuing(b"\xc2", False)
    assert not controls[TOKENIZER.id_of(b"\x80")]
    assert not controls[TOKENIZER.id_of(b"\xb2")]
    assert controls[TOKENIZER.id_of(b"\xb5")]


def test_every_pending_state_that_can_be_reached_has_a_way_out() -> None:
    todo = [(split_utf8(VOCABULARY.bytes[i])[1], False) for i in VOCABULARY.legal.nonzero()[0]]
    todo += [(split_utf8(VOCABULARY.bytes[i])[1], True) for i in VOCABULARY.at_start.nonzero()[0]]
    seen = set()
    while todo:
        state = todo.pop()
        if not state[0] or state in seen:
            continue
        seen.add(state)
        allowed = VOCABULARY.continuing(*state).nonzero()[0]
        assert any(VOCABULARY.characters[i] == 0 for i in allowed), "a way that takes no room"
        for token in allowed:
            text, rest = split_utf8(state[0] + VOCABULARY.bytes[token])
            todo.append((rest, state[1] and not text))
    assert len(seen) > 20
