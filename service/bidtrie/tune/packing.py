"""Many examples in one sequence: all hang on one shared prefix, and none sees another.

    tokens   prefix | example 0 | example 1 | ...
    sees     each example: the prefix and itself up to the token; each counts its positions on from the prefix

No token is padding, and a long prefix (the creative prompt's worked examples) is computed once a sequence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from bidtrie.tune.example import Choice, Example

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pack:
    """One sequence of n tokens.

    tokens, positions  int64 [n]
    visible            bool [n, n], what each token sees
    choices            all examples' branchings, rows counted in the sequence
    word_rows, words   int64 [w], rows and the tokens that follow them
    examples           how many examples it holds
    """

    tokens: Int64
    positions: Int64
    visible: Bool
    choices: tuple[Choice, ...]
    word_rows: Int64
    words: Int64
    examples: int


def pack(prefix: Sequence[int], examples: Sequence[Example]) -> Pack:
    """All examples behind one prefix."""
    lengths = [len(example.tokens) for example in examples]
    begins = list(accumulate(lengths, initial=len(prefix)))
    total = begins[-1]
    visible = np.zeros((total, total), np.bool_)
    visible[:, : len(prefix)] = True
    visible[: len(prefix), : len(prefix)] = np.tri(len(prefix), dtype=bool)
    positions = [np.arange(len(prefix))]
    choices: list[Choice] = []
    rows: list[int] = []
    words: list[int] = []
    for example, begin in zip(examples, begins, strict=False):
        count = len(example.tokens)
        visible[begin : begin + count, begin : begin + count] = np.tri(count, dtype=bool)
        positions.append(len(prefix) + np.arange(count))
        choices += [replace(each, row=begin + each.row) for each in example.choices]
        rows += [begin + example.answer + i for i in range(len(example.words))]
        words += example.words
    return Pack(
        tokens=np.array([*prefix, *(token for each in examples for token in each.tokens)], np.int64),
        positions=np.concatenate(positions).astype(np.int64),
        visible=visible,
        choices=tuple(choices),
        word_rows=np.array(rows, np.int64),
        words=np.array(words, np.int64),
        examples=len(examples),
    )


def grouped(lengths: Sequence[int], order: Sequence[int], room: int) -> Iterator[list[int]]:
    """Indices in the given order, cut into groups whose lengths sum up to at most `room` (one at least)."""
    group: list[int] = []
    used = 0
    for i in order:
        if group and used + lengths[i] > room:
            yield group
            group, used = [], 0
        group.append(i)
        used += lengths[i]
    if group:
        yield group
