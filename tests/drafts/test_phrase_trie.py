"""The trie against n-grams counted in plain Python."""

from collections import Counter

import pytest
from bidtrie.drafts.phrase_trie import MOST_CHILDREN, MOST_CONTEXT, PhraseTrie, context_of, start
from hypothesis import given
from hypothesis import strategies as st

VOCABULARY = 6
TEXTS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), max_size=6)


def counted(texts: list[list[int]], weights: list[float], context: tuple[int, ...]) -> Counter[int]:
    """What followed a context, by looking at every place; -1 where a text ended."""
    found: Counter[int] = Counter()
    for text, weight in zip(texts, weights, strict=True):
        whole = [start(VOCABULARY), *text]
        for i in range(len(whole)):
            if i + 1 >= len(context) and tuple(whole[i + 1 - len(context) : i + 1]) == context:
                found[whole[i + 1] if i + 1 < len(whole) else -1] += weight
    return found


@given(texts=TEXTS, context=st.lists(st.integers(0, VOCABULARY - 1), max_size=5), data=st.data())
def test_continuations_equal_counted_ngrams(
    texts: list[list[int]], context: list[int], data: st.DataObject
) -> None:
    weights = [data.draw(st.sampled_from([0.5, 1.0, 2.0])) for _ in texts]
    begin = start(VOCABULARY)
    trie = PhraseTrie(
        (([begin, *text], weight) for text, weight in zip(texts, weights, strict=True)), VOCABULARY
    )
    assert len(trie) == sum(len(text) + 1 for text in texts)
    asked = context_of(context, VOCABULARY)
    for length in range(min(len(asked), MOST_CONTEXT), 0, -1):
        wanted = counted(texts, weights, tuple(asked[-length:]))
        if wanted:
            break
    else:
        assert trie.following(asked) is None
        return
    found = trie.following(asked)
    assert found is not None
    assert found == trie.following(asked), "what is remembered is the same"
    assert found[0] == length
    total = sum(wanted.values())
    shares = dict(found[1])
    assert shares == pytest.approx({token: wanted[token] / total for token in shares})
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    left = [weight / total for token, weight in wanted.items() if token >= 0 and token not in shares]
    assert len(shares) == min(MOST_CHILDREN, len(shares) + len(left))
    assert not left or max(left) <= min(shares.values()) + 1e-9


def test_texts_do_not_run_into_each_other() -> None:
    trie = PhraseTrie([([1, 2], 1.0), ([3, 4], 1.0)], VOCABULARY)
    assert trie.following((2,)) == (1, ())
    assert trie.following((2, 3)) == (1, ((4, 1.0),)), "2 was never before 3"
    assert trie.following((1, 2)) == (2, ())
    whole = PhraseTrie([([start(VOCABULARY), 3, 4], 1.0)], VOCABULARY)
    assert whole.following(context_of((), VOCABULARY)) == (1, ((3, 1.0),))
    assert whole.following(context_of((3,), VOCABULARY)) == (2, ((4, 1.0),))


def test_no_texts_know_nothing() -> None:
    assert PhraseTrie([], VOCABULARY).following((1, 2, 3)) is None
    assert PhraseTrie([([], 1.0)], VOCABULARY).following((1,)) is None


def test_it_takes_16_bytes_a_token() -> None:
    trie = PhraseTrie([(list(range(6)) * 100, 1.0)], VOCABULARY)
    assert trie.nbytes == 16 * 600
