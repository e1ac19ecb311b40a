"""Building, joining and splitting tree batches."""

import numpy as np
import pytest
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, Joined, StepOutput, TreeBatch, kept_parent
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def batches(draw: st.DrawFn, most: int = 8) -> TreeBatch:
    """Well-formed batches, empty ones included, with and without candidates, logsumexp and kept parents."""
    count = draw(st.integers(0, most))
    parents = [
        draw(st.sampled_from([PREFIX_END, kept_parent(draw(st.integers(0, 99))), *range(i)]))
        for i in range(count)
    ]
    rows = draw(st.lists(st.integers(0, count - 1), max_size=6)) if count else []
    ids = st.lists(st.integers(0, 99), max_size=4)
    candidates = Candidates.of([draw(ids) for _ in rows]) if draw(st.booleans()) else None
    return TreeBatch.of(
        draw(st.lists(st.integers(0, 99), min_size=count, max_size=count)),
        draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)),
        parents,
        rows,
        candidates,
        draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))),
    )


def ids_of(batch: TreeBatch, row: int) -> list[int]:
    if batch.candidates is None:
        return []
    return batch.candidates.ids[batch.candidates.offsets[row] : batch.candidates.offsets[row + 1]].tolist()


def ancestry(batch: TreeBatch, node: int) -> tuple[int, ...]:
    """Tokens of the node and its ancestors, then where they hang: what must survive joining."""
    tokens = []
    while node >= 0:
        tokens.append(int(batch.tokens[node]))
        node = int(batch.parent[node])
    return (*tokens, node)


def row_width(batch: TreeBatch, row: int, vocabulary: int) -> int:
    return len(ids_of(batch, row)) or vocabulary


def output_of(batch: TreeBatch, vocabulary: int = 10) -> StepOutput:
    """An output whose every number is different, so that none can be mistaken for another."""
    rows = len(batch.logits_for)
    offsets = np.cumsum([0, *(row_width(batch, r, vocabulary) for r in range(rows))], dtype=np.int64)
    return StepOutput(
        np.arange(1000, 1000 + len(batch), dtype=np.int32),
        offsets,
        np.arange(offsets[-1], dtype=np.float32),
        -np.arange(rows, dtype=np.float32),
    )


@given(st.lists(batches(), min_size=1, max_size=5))
def test_joining_keeps_every_node_and_row(parts: list[TreeBatch]) -> None:
    joined = Joined.of(parts).batch
    assert len(joined) == sum(map(len, parts))
    for array in (joined.tokens, joined.sequence, joined.parent, joined.logits_for):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert (
        joined.candidates is None
        or joined.candidates.offsets.dtype == joined.candidates.ids.dtype == np.int32
    )
    node = row = 0
    for part in parts:
        for i in range(len(part)):
            assert ancestry(joined, node + i) == ancestry(part, i)
            assert joined.sequence[node + i] == part.sequence[i]
            assert joined.parent[node + i] < node + i
        for r in range(len(part.logits_for)):
            assert joined.logits_for[row + r] == part.logits_for[r] + node
            assert ids_of(joined, row + r) == ids_of(part, r)
            wanted = part.logsumexp is not None and part.logsumexp[r]
            assert (joined.logsumexp is not None and joined.logsumexp[row + r]) == wanted
        node += len(part)
        row += len(part.logits_for)
    assert len(joined.logits_for) == row


@given(st.lists(batches(), min_size=1, max_size=5))
def test_splitting_gives_each_part_its_own(parts: list[TreeBatch]) -> None:
    joined = Joined.of(parts)
    output = output_of(joined.batch)
    outputs = joined.split(output)
    assert len(outputs) == len(parts)
    node = row = 0
    for part, own in zip(parts, outputs, strict=True):
        np.testing.assert_array_equal(own.nodes, output.nodes[node : node + len(part)], strict=True)
        rows = len(part.logits_for)
        assert own.offsets.dtype == np.int64
        assert own.offsets.shape == (rows + 1,)
        assert own.offsets[0] == 0
        assert own.offsets[-1] == len(own.logits)
        np.testing.assert_array_equal(own.logsumexp, output.logsumexp[row : row + rows], strict=True)
        for r in range(rows):
            np.testing.assert_array_equal(own.row(r), output.row(row + r), strict=True)
            assert len(own.row(r)) == row_width(part, r, 10)
        node += len(part)
        row += rows


@given(batches())
def test_one_part_is_passed_through(part: TreeBatch) -> None:
    assert Joined.of([part]).batch is part


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6))
def test_candidates_of_lists(rows: list[list[int]]) -> None:
    candidates = Candidates.of(rows)
    assert candidates.offsets.dtype == candidates.ids.dtype == np.int32
    assert candidates.offsets.shape == (len(rows) + 1,)
    for r, row in enumerate(rows):
        assert candidates.ids[candidates.offsets[r] : candidates.offsets[r + 1]].tolist() == row
    arrays = Candidates.of([np.asarray(row, np.int32) for row in rows])
    np.testing.assert_array_equal(arrays.offsets, candidates.offsets, strict=True)
    np.testing.assert_array_equal(arrays.ids, candidates.ids, strict=True)


def test_batch_of_lists() -> None:
    batch = TreeBatch.of([5, 6, 7], 3, [-1, 0, 0], [2, 1], Candidates.of([[1], []]), logsumexp=True)
    assert len(batch) == 3
    for array in (batch.tokens, batch.sequence, batch.parent, batch.logits_for):
        assert array.dtype == np.int32
    assert batch.sequence.tolist() == [3, 3, 3]
    assert batch.logsumexp is not None
    assert batch.logsumexp.tolist() == [True, True]


@pytest.mark.parametrize("logsumexp", [False, [False, False], np.zeros(2, np.bool_)])
def test_no_logsumexp_wanted_is_none(logsumexp: object) -> None:
    assert TreeBatch.of([1, 2], 0, [-1, 0], [0, 1], logsumexp=logsumexp).logsumexp is None


def test_some_logsumexp_wanted() -> None:
    batch = TreeBatch.of([1, 2], [4, 4], [-1, 0], [0, 1], logsumexp=[False, True])
    assert batch.logsumexp is not None
    assert batch.logsumexp.tolist() == [False, True]


def test_strided_arrays_become_contiguous() -> None:
    batch = TreeBatch.of(np.arange(8, dtype=np.int32)[::2], 0, np.full(8, -1)[::2])
    assert batch.tokens.flags.c_contiguous
    assert batch.tokens.tolist() == [0, 2, 4, 6]


def test_chain() -> None:
    batch = TreeBatch.chain([7, 8, 9], 2)
    assert batch.parent.tolist() == [PREFIX_END, 0, 1]
    assert len(batch.logits_for) == 0
    assert batch.candidates is None
    last = TreeBatch.chain([7, 8, 9], 2, last_logits=True, candidates=Candidates.of([[4, 5]]), logsumexp=True)
    assert last.logits_for.tolist() == [2]
    assert ids_of(last, 0) == [4, 5]
    assert last.logsumexp is not None


@given(st.integers(0, 2**31 - 3))
def test_kept_parent_is_its_own_inverse_and_no_other_entry(handle: int) -> None:
    entry = kept_parent(handle)
    assert entry < PREFIX_END
    assert entry >= np.iinfo(np.int32).min
    assert kept_parent(entry) == handle


def test_a_joined_batch_that_forgot_to_shift_parents_is_seen() -> None:
    """Negative control: what `ancestry` compares does depend on the shift."""
    first, second = TreeBatch.chain([1, 2], 0), TreeBatch.chain([3, 4], 1)
    joined = Joined.of([first, second]).batch
    unshifted = TreeBatch.of(joined.tokens, joined.sequence, np.concatenate([first.parent, second.parent]))
    assert ancestry(joined, 3) == ancestry(second, 1)
    assert ancestry(unshifted, 3) != ancestry(second, 1)
