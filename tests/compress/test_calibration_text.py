"""Which text models are calibrated on, and in which prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
from bidtrie.compress import calibration_text
from bidtrie.compress.calibration_text import PACKAGE, read_calibration_text
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.errors import InvalidInput
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import GenerateQuery, PageContext, Product, Slot, SlotType
from bidtrie.trie.prompt import fixed_tokens, render
from reference.tiny_models import BOS, EOS, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer(), source="tiny model", eos_ids=[EOS], bos_id=BOS)


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def all_tokens(text: np.ndarray) -> str:
    return ",".join(map(str, text.ravel().tolist())) + ","


def joined(tokens: list[int]) -> str:
    return ",".join(map(str, tokens)) + ","


def test_the_packages_own_text(tokenizer: Tokenizer) -> None:
    text = read_calibration_text([], tokenizer, 40, 128, 0)
    assert text.sequences.shape == (40, 128)
    assert text.sequences.dtype == np.int64
    assert text.sources == (PACKAGE,)
    assert text.documents > 1000
    whole = tokenizer.decode(text.sequences.ravel().tolist())
    for part in ("Page title:", "Topic category:", "Write a headline of at most 30 characters."):
        assert part in whole, "it has the prompts of the service"


def test_a_seed_is_a_draw(tokenizer: Tokenizer) -> None:
    first, again, other = (read_calibration_text([], tokenizer, 8, 64, seed).sequences for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pages_and_products_in_the_services_prompts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pages = write_lines(
        tmp_path / "pages.tsv",
        ["Sports > Soccer|Sports\tThe derby, minute by minute\t\tgoals, cup"] * 60,
    )
    head = "company,industry,type,desc,output"
    row = "Kettle,kitchen,headline,<company> boils in 40 seconds.,Boiling in 40 Seconds"
    products = write_lines(tmp_path / "products.csv", [head, *[row] * 60])
    text = read_calibration_text([pages, products], tokenizer, 1000, 512, 0)
    assert text.sources == ("pages.tsv", "products.csv")
    assert text.documents == 60 + 1 + 2 * 60
    whole = all_tokens(text.sequences)
    context = PageContext(title="The derby, minute by minute", keywords=("goals", "cup"))
    asked = [
        *fixed_tokens(tokenizer),
        *render(context, tokenizer, 128),
        *tokenizer.encode(" Sports > Soccer\n"),
    ]
    assert joined(asked) in whole
    template, slot = PromptTemplate(tokenizer), Slot("text", SlotType.HEADLINE, 30)
    query = GenerateQuery(
        product=Product("Kettle", industry="kitchen", description="Kettle boils in 40 seconds."),
        slots=(slot,),
    )
    assert joined([*template.rest_tokens(query, slot), *tokenizer.encode("Boiling in 40 Seconds\n")]) in whole
    assert joined(list(template.fixed_tokens[:512])) in whole, "the part that all share is cut to a sequence"
    assert (
        joined(tokenizer.encode("Kettle (kitchen): Kettle boils in 40 seconds.\nBoiling in 40 Seconds\n"))
        in whole
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_plain_text(suffix: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [f"An offer of the day, number {i}: a kettle" for i in range(200)]
    if suffix == ".txt":
        lines = texts
    else:
        lines = [json.dumps({"text": each, "id": 1} if i % 2 else each) for i, each in enumerate(texts)]
    lines.insert(3, "")
    text = read_calibration_text([write_lines(tmp_path / f"ads{suffix}", lines)], tokenizer, 10_000, 64, 0)
    assert text.documents == 200
    whole = all_tokens(text.sequences)
    found = [joined(tokenizer.encode(f"{each}\n")) in whole for each in texts]
    assert np.mean(found) > 0.4, "all that is not cut at a sequence's end"
    assert (text.sequences[:, 0] == BOS).all(), "every sequence begins where a document does"


def test_long_documents_are_cut_into_pieces(tokenizer: Tokenizer, tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(3000))
    text = read_calibration_text([write_lines(tmp_path / "a.txt", [long])], tokenizer, 1000, 100, 0)
    whole = [BOS, *tokenizer.encode(f"{long}\n")]
    np.testing.assert_array_equal(text.sequences.ravel(), whole[: text.sequences.size])
    assert len(text.sequences) == len(whole) // 100


def test_very_many_documents_are_drawn_evenly(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_text, "_MOST_DOCUMENTS", 100)
    path = write_lines(
        tmp_path / "a.txt",
        [f"{'early' if i < 500 else 'later'} text {i}" + " of it" * 20 for i in range(1000)],
    )
    text = read_calibration_text([path], tokenizer, 10_000, 32, 0)
    assert text.documents == 1000
    whole = tokenizer.decode(text.sequences.ravel().tolist())
    early, later = whole.count("early"), whole.count("later")
    assert early + later <= 100
    assert 0.3 < early / (early + later) < 0.7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "--data: holds 0 tokens in 0 documents, expected 2048 or more"),
        ("a.txt", "One line of an ad.\n", "--data: holds .* tokens in 1 documents, expected 2048 or more"),
        (
            "a.jsonl",
            '"fine"\n{"title": "x"}',
            'a.jsonl:2: expected a string, or an object with a string "text"',
        ),
        ("a.jsonl", "{", "a.jsonl:1: is not JSON"),
        ("a.parquet", "", "expected a name that ends in .csv, .jsonl, .tsv, .txt"),
        ("a.csv", "title\nx", "expected the columns company, industry, type, desc, output"),
        ("a.tsv", "only a label", "a.tsv:1: expected 2 to 5 columns"),
    ],
)
def test_wrong_files(name: str, content: str, message: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_calibration_text([tmp_path / name], tokenizer, 16, 64, 0)


def test_other_wrong_inputs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.txt: cannot be read: No such file"):
        read_calibration_text([tmp_path / "none.txt"], tokenizer, 16, 64, 0)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"a\.txt: is not UTF-8 text"):
        read_calibration_text([tmp_path / "a.txt"], tokenizer, 16, 64, 0)
    for count, length, seed, field in (
        (0, 64, 0, "--sequences"),
        (1, 0, 0, "--sequence-tokens"),
        (1, 64, -1, "--seed"),
    ):
        with pytest.raises(InvalidInput, match=field):
            read_calibration_text([], tokenizer, count, length, seed)
