"""Folds divide pages for good, and evenly."""

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.requests import PageContext
from bidtrie.retrieval.folds import fold_of, parse_fold


def test_a_page_is_in_one_fold_and_folds_are_about_equal() -> None:
    counts = [0] * 4
    for i in range(4000):
        counts[fold_of(PageContext(title=f"page {i}"), 4)] += 1
    assert all(850 < count < 1150 for count in counts)
    # Stored tables depend on it: it must not change.
    assert [fold_of(PageContext(title=title), 4) for title in ("a", "b", "c", "d")] == [3, 1, 3, 0]


@pytest.mark.parametrize("text", ["", "1", "4/4", "0/1", "-1/4", "a/b", "1/2/3", "0/0"])
def test_other_folds_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--fold: "):
        parse_fold(text, "--fold")


def test_folds_are_read() -> None:
    assert parse_fold("0/4", "--fold") == (0, 4)
    assert parse_fold("3/4", "--fold") == (3, 4)
