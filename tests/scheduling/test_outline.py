"""What steps a kind of job is expected to take."""

import numpy as np
import pytest
from bidtrie.engine.tree_batch import Candidates, TreeBatch
from bidtrie.scheduling.outline import OutlineBook
from bidtrie.scheduling.step_shape import NOTHING, StepShape, shape_of

FIRST = StepShape(20, 100, 0, 5, 1)


def test_an_unknown_kind_is_taken_for_a_few_smaller_steps():
    outline = OutlineBook().expected("kind", FIRST)
    assert outline[0] is FIRST
    assert [shape.nodes for shape in outline] == [20, 5, 5, 5, 5]
    assert len(OutlineBook().expected("kind", FIRST, 0)) == 1


def test_what_was_seen_is_expected():
    book = OutlineBook()
    later = [StepShape(8, 80, 0, 30, 1), StepShape(4, 50, 1, 9, 1)]
    book.learn("kind", [FIRST, *later])
    assert book.expected("kind", FIRST) == (FIRST, *later)
    assert book.expected("other", FIRST) != book.expected("kind", FIRST)


def test_a_step_that_few_jobs_take_is_not_expected_and_follows_change():
    book = OutlineBook()
    for _ in range(50):
        book.learn("kind", [FIRST, StepShape(8)])
    for _ in range(3):
        book.learn("kind", [FIRST, StepShape(8), StepShape(8), StepShape(8)])
    assert len(book.expected("kind", FIRST)) == 2
    for _ in range(50):
        book.learn("kind", [FIRST, StepShape(16), StepShape(2), StepShape(2)])
    assert [shape.nodes for shape in book.expected("kind", FIRST)] == [20, 16, 2, 2]
    for _ in range(50):
        book.learn("kind", [FIRST])
    assert book.expected("kind", FIRST) == (FIRST,)


def test_jobs_without_steps_teach_nothing():
    book = OutlineBook()
    book.learn("kind", [])
    assert len(book.expected("kind", FIRST)) == 5


def test_the_shape_of_a_batch():
    lengths = {3: 10, 4: 100}
    candidates = Candidates.of([[1, 2, 3], []])
    batch = TreeBatch.of([7, 8, 9], [3, 3, 4], [-1, 0, -1], [1, 2], candidates)
    assert shape_of(batch, lengths.__getitem__) == StepShape(3, 120, 1, 3, 1)
    with_sum = TreeBatch.of([7, 8, 9], [3, 3, 4], [-1, 0, -1], [1, 2], candidates, logsumexp=True)
    assert shape_of(with_sum, lengths.__getitem__).full_rows == 2
    chain = TreeBatch.chain([1, 2, 3, 4], 4, last_logits=True)
    assert shape_of(chain, lengths.__getitem__) == StepShape(4, 400, 1, 0, 1)
    assert shape_of(TreeBatch.chain([], 4), lengths.__getitem__).nodes == 0


def test_shapes_add_up():
    a, b = (StepShape(*np.random.default_rng(i).integers(0, 100, 5).tolist()) for i in (1, 2))
    assert a.plus(b) == tuple(x + y for x, y in zip(a, b, strict=True))
    assert a.plus(NOTHING) == a


@pytest.mark.parametrize("steps", [200])
def test_long_jobs_are_bounded(steps):
    book = OutlineBook()
    book.learn("kind", [FIRST, *[StepShape(1)] * steps])
    assert len(book.expected("kind", FIRST)) <= 65
