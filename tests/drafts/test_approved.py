"""The file of approved creatives: wrong lines are told, nothing that it may hold does harm, and it is read anew."""

import json
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from bidtrie.drafts.approved import (
    MAX_CHARACTERS,
    MAX_FILE_BYTES,
    ApprovedCreatives,
    ApprovedText,
    parse_approved,
    read_approved,
)
from bidtrie.errors import InvalidInput
from hypothesis import given, settings
from hypothesis import strategies as st

VOCABULARY = 256


def encode(text: str) -> list[int]:
    return list(text.encode())


def knows(tries: list, text: str) -> bool:  # type: ignore[type-arg]
    """Whether one of the tries has the text's first three bytes followed by the fourth."""
    data = tuple(text.encode())
    found = [trie.following(data[:3]) for _, trie in tries]
    return any(f is not None and f[0] == 3 and data[3] in dict(f[1]) for f in found)


def test_texts_are_read_with_whom_they_are_for(tmp_path: Path) -> None:
    file = tmp_path / "approved.jsonl"
    lines = [
        {"text": "everyone  reads this"},
        {"text": "only acme", "company": "Acme"},
        {"text": "bakers all", "industry": "food"},
        {"text": "just acme bread", "company": "Acme", "industry": "Food"},
    ]
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    assert read_approved(file)[:2] == [
        ApprovedText("everyone reads this"),
        ApprovedText("only acme", company="Acme"),
    ]
    approved = ApprovedCreatives(file, encode, VOCABULARY)
    texts = ("everyone", "only acme", "bakers all", "just acme")
    seen = {
        who: [knows(approved.tries(*who), text) for text in texts]
        for who in (("acme ", "FOOD"), ("acme", ""), ("other", "food"), ("", ""))
    }
    assert seen == {
        ("acme ", "FOOD"): [True] * 4,
        ("acme", ""): [True] * 4,
        ("other", "food"): [True, False, True, False],
        ("", ""): [True, False, True, False],
    }
    kinds = [(kind, knows([(kind, trie)], "bakers all")) for kind, trie in approved.tries("acme", "food")]
    assert kinds == [("company", False), ("industry", True), ("all", True)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "expected an object"),
        (b'"text"', "expected an object"),
        (b"{}", "text: is missing or empty"),
        (b'{"text": "  "}', "text: is missing or empty"),
        (b'{"text": 3}', "text: expected a string"),
        (b'{"text": "a", "company": null}', "company: expected a string"),
        (b'{"text": "a", "compnay": "b"}', "unknown key 'compnay'"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (json.dumps({"text": "a" * (MAX_CHARACTERS + 1)}).encode(), "at most 2000 characters"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(line: bytes, why: str) -> None:
    data = b'{"text": "good"}\n\n' + line + b'\n{"text": "good"}\n'
    with pytest.raises(InvalidInput, match="approved:3: ") as wrong:
        parse_approved(data, "approved")
    assert why in str(wrong.value)
    assert len(str(wrong.value)) < 300


def test_the_first_ten_wrong_lines_are_told() -> None:
    with pytest.raises(InvalidInput) as wrong:
        parse_approved(b"x\n" * 50, "approved")
    assert [v.field for v in wrong.value.violations] == [f"approved:{n}" for n in range(1, 11)]


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda value: json.dumps(value).encode(),
                st.recursive(
                    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=20)),
                    lambda inner: st.one_of(
                        st.lists(inner, max_size=3),
                        st.dictionaries(st.sampled_from(["text", "company", "industry", "x"]), inner),
                    ),
                    max_leaves=6,
                ),
            ),
            st.builds(
                lambda text, at, byte: (
                    (data := json.dumps({"text": text}).encode())[: at % len(data)]
                    + byte
                    + data[at % len(data) :]
                ),
                st.text(min_size=1, max_size=20),
                st.integers(0, 99),
                st.binary(max_size=2),
            ),
        ),
        max_size=5,
    )
)
def test_whatever_the_file_holds_it_is_read_or_refused(lines: list[bytes]) -> None:
    try:
        texts = parse_approved(b"\n".join(lines), "fuzz")
    except InvalidInput as error:
        refused = [violation.field for violation in error.violations]
    else:
        refused = []
    assert all(field.startswith("fuzz:") for field in refused)
    if refused:
        return
    for each in texts:
        assert 0 < len(each.text) <= MAX_CHARACTERS
        each.text.encode()


def test_files_that_are_none_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_approved(tmp_path / "missing")
    with pytest.raises(InvalidInput, match="not a regular file"):
        read_approved(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="not a regular file"):
        read_approved(tmp_path / "pipe")
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match="has over 16 MiB"):
        read_approved(large)


def replace_file(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def test_a_changed_file_is_read_and_a_wrong_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "approved.jsonl"
    replace_file(file, '{"text": "first words"}\n')
    approved = ApprovedCreatives(file, encode, VOCABULARY)
    assert not approved.refresh(), "nothing has changed"
    replace_file(file, '{"text": "other words"}\n')
    assert approved.refresh()
    assert knows(approved.tries("", ""), "other words")
    assert not knows(approved.tries("", ""), "first words")

    with caplog.at_level(logging.WARNING):
        replace_file(file, '{"text": "third words"}\noops\n')
        assert not approved.refresh()
        assert not approved.refresh(), "told once"
        file.unlink()
        assert not approved.refresh()
    told = [record.why for record in caplog.records]  # type: ignore[attr-defined]
    assert len(told) == 2
    assert "approved.jsonl:2: is not JSON" in told[0]
    assert "cannot be read" in told[1]
    assert knows(approved.tries("", ""), "other words")


def test_a_wrong_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "approved.jsonl"
    file.write_text("oops\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"approved\.jsonl:1"):
        ApprovedCreatives(file, encode, VOCABULARY)


def test_the_watcher_reads_on_a_thread_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "approved.jsonl"
    replace_file(file, '{"text": "first words"}\n')
    threads: set[str] = set()

    def watched(text: str) -> list[int]:
        threads.add(threading.current_thread().name)
        return encode(text)

    approved = ApprovedCreatives(file, watched, VOCABULARY)
    threads.clear()
    approved.watch(0.01)
    replace_file(file, '{"text": "other words"}\n')
    until = time.monotonic() + 30
    while not knows(approved.tries("", ""), "other words") and time.monotonic() < until:
        time.sleep(0.01)
    approved.close()
    assert knows(approved.tries("", ""), "other words")
    assert threads == {"bidtrie-approved"}
