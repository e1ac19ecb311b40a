import pytest
from bidtrie.language import canonical, english_name, problem_with


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("en", "en"),
        ("EN-us", "en-US"),
        ("pt-br", "pt-BR"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("zh-yue", "zh-yue"),
        ("es-419", "es-419"),
        ("sl-rozaj-biske-1994", "sl-rozaj-biske-1994"),
        ("de-DE-u-co-phonebk", "de-DE-u-co-phonebk"),
        ("en-x-ours", "en-x-ours"),
        ("fil", "fil"),
    ],
)
def test_well_formed_tags(tag: str, expected: str) -> None:
    assert problem_with(tag) is None
    assert canonical(tag) == expected


@pytest.mark.parametrize(
    "tag",
    [
        "", "e", "english", "en_US", "en-", "-en", "en--US", "x-ours", "i-klingon", "en-a-bbb-a-ccc", "de-1996-1996",
        "en-" + "a" * 9, "en\n", "ğ", "\u212ak", "en-" + "abcde-" * 20, "e\0n",
    ],
)  # fmt: skip
def test_malformed_tags(tag: str) -> None:
    assert "BCP 47" in (problem_with(tag) or "")


@pytest.mark.parametrize("tag", ["qq", "xx-US", "zzz"])
def test_unknown_languages(tag: str) -> None:
    assert "ISO 639" in (problem_with(tag) or "")


def test_names() -> None:
    assert english_name("pt-BR") == "Portuguese"
    assert english_name("nn") == "Norwegian Nynorsk"
    assert english_name("fil") is None
