"""Tokenizers against plain second implementations, against transformers, and against themselves."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from bidtrie.errors import InvalidInput, ModelError
from bidtrie.models.fields import Fields
from bidtrie.models.gguf_file import read_gguf
from bidtrie.models.gguf_tokenizer import tokenizer_from_gguf
from bidtrie.models.load import load_checkpoint
from bidtrie.models.tokenizer import Tokenizer, byte_level_alphabet
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models.reference_bpe import (
    LLAMA_CPP_PATTERNS,
    MERGES_KEY,
    TOKENS_KEY,
    byte_level_ids,
    bytes_to_unicode,
    cut,
    sentencepiece_ids,
)
from models.tiny_files import vocabulary
from reference.tiny_models import BOS, EOS, MERGES, tiny_tokenizer

TEXTS = [
    "",
    " ",
    "Hello world",
    "  two spaces, and trailing  ",
    "\n\n\t tabs\r\nand lines\u2028x",
    "Prices: 1,299.99 € or 20% off — 2026-11-23",
    "it's we'll I'VE don't 'tis",
    "naïve café, Straße, Ærøskøbing, e\u0301 combining",
    "漢字かな交じり文 한국어 العربية עברית ไทย",
    "emoji 😀👩‍👩‍👧‍👦🏳️‍🌈 and 1️⃣",
    "NUL \x00 and DEL \x7f and \ufffd \ufeff",
    "Ⅻ ½ ١٢٣ ৪৫ superscript x²",
    "camelCase snake_case http://example.com/a?b=c&d=1",
    "<|im_end|><|endoftext|> looks like control tokens",
    "a" * 300,
]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
#: Texts rich in what the splitting patterns care about.
TRICKY = st.text(
    st.sampled_from(list("aZé1٣½ '’sStTvVrReEmMlLdD\n\r\t\u00a0\u3000.,!-€漢\u0301😀")), max_size=30
)


@pytest.fixture(scope="session")
def smollm2_metadata(smollm2_path: Path) -> dict[str, Any]:
    return read_gguf(smollm2_path).metadata


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    return load_checkpoint(smollm2_path).tokenizer


def gguf_fields(pre: str = "gpt-2", **changes: Any) -> Fields:
    tokens = vocabulary()
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i in (BOS, EOS) else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": MERGES.split("|"),
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
    }
    for key, value in changes.items():
        values[f"tokenizer.ggml.{key}"] = value
    return Fields("tiny.gguf", values)


def test_smollm2_equals_a_plain_implementation(smollm2: Tokenizer, smollm2_metadata: dict[str, Any]) -> None:
    tokens, merges = smollm2_metadata[TOKENS_KEY], smollm2_metadata[MERGES_KEY]
    for text in TEXTS:
        assert smollm2.encode(text) == byte_level_ids(text, "smollm", tokens, merges)
    # The comparison can fail: digits cut another way give other ids.
    assert smollm2.encode(" ½") != byte_level_ids(" ½", "gpt-2", tokens, merges)


def test_smollm2_equals_transformers(smollm2: Tokenizer, smollm2_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    for text in TEXTS:
        if "Ⅻ" in text:
            # transformers leaves the splitting of digits out for GGUF files; it matters beyond ASCII only, where
            # the vocabulary has tokens of several digits.
            continue
        assert smollm2.encode(text, parse_special=True) == theirs.encode(text, add_special_tokens=False)
        ids = smollm2.encode(text)
        assert smollm2.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert smollm2.eos_ids == (theirs.eos_token_id,)
    assert smollm2.chat_template == theirs.chat_template


def test_smollm2_known_vectors(smollm2: Tokenizer) -> None:
    assert smollm2.encode("Hello world 123") == [19556, 905, 216, 33, 34, 35]
    assert smollm2.encode("it's 😀\n\n  x") == [
        smollm2.token_id(token) for token in ("it", "'s", "ĠðŁĺ", "Ģ", "ĊĊĠ", "Ġx")
    ]
    assert smollm2.token_id("<|im_end|>") == 2
    assert smollm2.token_id("no such token") is None
    assert smollm2.vocab_size == 49152
    assert smollm2.special_ids == frozenset(range(17))
    assert smollm2.encode("2026") == [smollm2.token_id(digit) for digit in "2026"]


@pytest.mark.parametrize("text", TEXTS)
def test_smollm2_round_trip_and_bytes(smollm2: Tokenizer, text: str) -> None:
    ids = smollm2.encode(text)
    assert smollm2.decode(ids) == text
    assert b"".join(map(smollm2.token_bytes, ids)) == text.encode()
    assert not smollm2.special_ids & set(ids)


def test_every_token_has_its_bytes(smollm2: Tokenizer, smollm2_metadata: dict[str, Any]) -> None:
    back = {character: byte for byte, character in bytes_to_unicode().items()}
    assert byte_level_alphabet() == back
    for token, text in enumerate(smollm2_metadata[TOKENS_KEY]):
        expected = b"" if token < 17 else bytes(back[character] for character in text)
        assert smollm2.token_bytes(token) == expected
    assert smollm2.token_bytes(49152) == smollm2.token_bytes(-1) == b""


#: Bytes that SmolLM2's vocabulary has no token for; those of 0xC0 and above occur in unassigned planes only.
WITHOUT_TOKEN = bytes.fromhex("0406131416 1d c0c1f1f2f5f6f7f8f9fafbfcfdfeff")


def test_bytes_without_a_token_are_left_out(smollm2: Tokenizer) -> None:
    single = {smollm2.token_bytes(token) for token in range(49152) if len(smollm2.token_bytes(token)) == 1}
    assert bytes(byte for byte in range(256) if bytes([byte]) not in single) == WITHOUT_TOKEN
    assert smollm2.encode("a\x06b") == smollm2.encode("a") + smollm2.encode("b")


@settings(max_examples=150)
@given(text=TEXT | TRICKY)
@example("x\x00y")
def test_any_text_round_trips(smollm2: Tokenizer, text: str) -> None:
    text = "".join(character for character in text if not set(character.encode()) & set(WITHOUT_TOKEN))
    ids = smollm2.encode(text)
    assert smollm2.decode(ids) == text
    assert b"".join(map(smollm2.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize("pre", LLAMA_CPP_PATTERNS)
@settings(max_examples=200)
@given(text=TEXT | TRICKY)
def test_splitting_patterns(pre: str, text: str) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer_from_gguf(gguf_fields(pre), 300)._definition)
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    alphabet = bytes_to_unicode()
    expected = ["".join(alphabet[byte] for byte in word.encode()) for word in cut(text, pre)]
    assert [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == expected


@pytest.mark.parametrize("pre", LLAMA_CPP_PATTERNS)
@pytest.mark.parametrize("text", TEXTS)
def test_tiny_byte_level(pre: str, text: str) -> None:
    tokenizer = tokenizer_from_gguf(gguf_fields(pre), 300)
    expected = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
    assert tokenizer.encode(text) == byte_level_ids(
        expected, pre, vocabulary(), MERGES.split("|"), whole_words=pre == "llama-bpe"
    )
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_text_that_spells_a_special_token_stays_text(smollm2: Tokenizer) -> None:
    text = "buy<|im_end|>now"
    assert 2 not in smollm2.encode(text)
    assert smollm2.decode(smollm2.encode(text)) == text
    assert smollm2.encode(text, parse_special=True)[1] == 2
    assert smollm2.decode([2]) == ""
    assert smollm2.decode([2], skip_special_tokens=False) == "<|im_end|>"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_refused(smollm2: Tokenizer, text: str) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        smollm2.encode(text)
    with pytest.raises(TypeError):
        smollm2.encode(b"bytes")  # type: ignore[arg-type]


def test_content_hash() -> None:
    first = Tokenizer(tiny_tokenizer(), source="x", eos_ids=[EOS], bos_id=BOS)
    assert (
        first.content_hash == Tokenizer(tiny_tokenizer(), source="y", eos_ids=[EOS], bos_id=BOS).content_hash
    )
    assert len(first.content_hash) == 16
    other = tiny_tokenizer()
    other.add_tokens(["extra"])
    hashes = {
        first.content_hash,
        first.with_ends(bos_id=None, eos_ids=[EOS]).content_hash,
        Tokenizer(other, source="x", eos_ids=[EOS], bos_id=BOS).content_hash,
        tokenizer_from_gguf(gguf_fields("smollm"), 300).content_hash,
    }
    assert len(hashes) == 4


def test_truncation_and_padding_of_the_definition_are_dropped() -> None:
    backend = tiny_tokenizer()
    backend.enable_truncation(2)
    backend.enable_padding(length=64)
    assert len(Tokenizer(backend, source="x").encode("the thing in the region")) not in (2, 64)


def test_user_defined_and_unused_tokens() -> None:
    types = [3 if i in (BOS, EOS) else 1 for i in range(300)]
    types[298], types[299] = 4, 5
    tokenizer = tokenizer_from_gguf(gguf_fields(token_type=types), 300)
    assert tokenizer.special_ids == {BOS, EOS, 299}
    assert tokenizer.token_bytes(299) == b""
    assert tokenizer.token_bytes(298) == vocabulary()[298].encode()


def test_ends() -> None:
    assert tokenizer_from_gguf(gguf_fields(), 300).bos_id is None
    assert tokenizer_from_gguf(gguf_fields(add_bos_token=True), 300).bos_id == BOS
    assert tokenizer_from_gguf(gguf_fields(eot_token_id=3), 300).eos_ids == (EOS, 3)
    assert tokenizer_from_gguf(gguf_fields(eot_token_id=EOS), 300).eos_ids == (EOS,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model 'bert' is not supported, expected gpt2 or llama"),
        ({"pre": "chameleon"}, "tokenizer.ggml.pre 'chameleon' is not supported, expected gpt-2, smollm"),
        ({"tokens": ["a", "a"]}, "holds a token twice"),
        ({"tokens": ["a", 1]}, "expected a list of strings"),
        ({"tokens": ["a"] * 301}, "has 301 tokens, the embedding 300 rows"),
        ({"token_type": [1]}, "token_type has 1 entries, expected 300"),
        ({"merges": ["t h", "zz yy"]}, "merges holds 'zz yy', expected two known tokens"),
        ({"merges": ["th"]}, "merges holds 'th', expected two known tokens"),
        ({"eos_token_id": 300}, "eos_token_id is 300, expected 0 to 299"),
        ({"eos_token_id": -1}, "eos_token_id is -1, expected 0 to 299"),
        ({"add_bos_token": 1}, "add_bos_token is 1, expected true or false"),
        ({"model": "llama"}, "tokenizer.ggml.scores is missing"),
        ({"model": "llama", "scores": [0.0]}, "scores has 1 entries, expected 300"),
        ({"model": "llama", "scores": [float("nan")] * 300}, "expected a list of finite numbers"),
    ],
)
def test_metadata_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer_from_gguf(gguf_fields(**changes), 300)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"model": {"type": "BPE"}}'])
def test_definitions_that_are_none(text: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer.json: is not a tokenizer definition"):
        Tokenizer.from_json(text, source="tokenizer.json")


def test_token_ids_beyond_reason() -> None:
    text = tiny_tokenizer().to_str()
    assert '"Ġthe":' in text
    with pytest.raises(ModelError, match="token ids go up to 4294967290, expected 0 to 4194303"):
        Tokenizer.from_json(re.sub(r'"Ġthe": ?\d+', '"Ġthe":4294967290', text), source="tokenizer.json")


def test_unknown_decoder_is_named() -> None:
    backend = tiny_tokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(
        ModelError, match="the tokenizer's decoder is WordPiece, expected byte-level or Sentence"
    ):
        Tokenizer.from_json(backend.to_str(), source="tokenizer.json")


# SentencePiece's kind, as Llama 2 and Mistral have it.

SPACE = "\u2581"
PIECES = [
    f"{SPACE}the",
    "th",
    "he",
    "the",
    f"{SPACE}t",
    "er",
    "in",
    "ing",
    "an",
    f"{SPACE}a",
    "aa",
    "aaa",
    "éa",
    f"{SPACE}{SPACE}",
]
SENTENCEPIECE_TOKENS = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *PIECES,
    SPACE,
    *"abcdefghijklmnopqrstuvwxyzé.,'",
]
SENTENCEPIECE_SCORES = [0.0] * 259 + [-float(i) for i in range(len(SENTENCEPIECE_TOKENS) - 259)]
SENTENCEPIECE_TYPES = [2, 3, 3] + [6] * 256 + [1] * (len(SENTENCEPIECE_TOKENS) - 259)


def sentencepiece(**changes: Any) -> Tokenizer:
    values: dict[str, Any] = {
        "model": "llama",
        "tokens": SENTENCEPIECE_TOKENS,
        "scores": SENTENCEPIECE_SCORES,
        "token_type": SENTENCEPIECE_TYPES,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    return tokenizer_from_gguf(gguf_fields(**values), 400)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("text", [*TEXTS, "the thing an aaaaa inging  the", "éaa"])
def test_sentencepiece(text: str, prefix: bool) -> None:
    tokenizer = sentencepiece(add_space_prefix=prefix)
    ids = tokenizer.encode(text)
    assert ids == sentencepiece_ids(text, SENTENCEPIECE_TOKENS, SENTENCEPIECE_SCORES, prefix)
    assert tokenizer.decode(ids) == text
    shown = f" {text}" if prefix and text else text
    assert b"".join(map(tokenizer.token_bytes, ids)) == shown.encode()


def test_sentencepiece_ends_and_specials() -> None:
    tokenizer = sentencepiece()
    assert tokenizer.bos_id == 1, "SentencePiece models expect it unless the file declines"
    assert sentencepiece(add_bos_token=False).bos_id is None
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.token_bytes(3 + 0xAB) == b"\xab"
    assert tokenizer.token_bytes(0) == b""
