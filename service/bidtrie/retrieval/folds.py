"""Tables of word vectors that have not seen a part of the pages that others learned from (cross-fitting).

A retriever knows the pages that it was trained on by heart, far better than any other page. What learns beside it on
the same pages would learn to trust it too much, so each of them is shown the scores of a table that has not seen it:
`retrieval.distill --without 0/4`, `1/4` and so on make four tables, and table i serves the pages of fold i.
"""

import re
import zlib

from bidtrie.errors import InvalidInput
from bidtrie.requests import PageContext
from bidtrie.trie.prompt import retrieval_text


def fold_of(context: PageContext, folds: int) -> int:
    """Which of so many parts a page belongs to, by its text alone: 0 to folds - 1."""
    return zlib.crc32(retrieval_text(context).encode()) % folds


def parse_fold(text: str, flag: str) -> tuple[int, int]:
    """The fold and the number of folds of "i/n"; InvalidInput naming the flag otherwise."""
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    fold, folds = map(int, found.groups()) if found else (0, 0)
    if not fold < folds or folds < 2:
        raise InvalidInput.of(flag, f"{text!r}, expected i/n with i from 0 to n - 1 and n from 2 on")
    return fold, folds
