"""Recent outputs: bounded, decayed, and never told to another advertiser."""

import random

from bidtrie.drafts.recent import MOST_TEXTS, RecentOutputs
from hypothesis import given
from hypothesis import strategies as st

VOCABULARY = 1000


def test_nothing_crosses_from_one_advertiser_to_another() -> None:
    """Every company writes with tokens of its own; whoever asks for it, nothing else is ever told."""
    recent = RecentOutputs(1 << 20, VOCABULARY)
    rng = random.Random(0)
    companies = [f"Company {i}" for i in range(40)]
    for _ in range(400):
        i = rng.randrange(40)
        recent.add(companies[i], [[10 * i + rng.randrange(10) for _ in range(rng.randrange(1, 9))]])
    asked = 0
    for i, company in enumerate(companies):
        trie = recent.trie(company)
        assert trie is not None
        for context in [(t,) for t in range(VOCABULARY + 2)]:
            found = trie.following(context)
            if found is not None:
                asked += 1
                own = {*range(10 * i, 10 * i + 10)}
                assert context[0] in own | {VOCABULARY}
                assert {token for token, _ in found[1]} <= own
    assert asked > 100
    assert recent.trie("Company 40") is None
    assert recent.trie("") is None
    assert recent.trie("  ") is None


def test_names_are_the_same_whatever_their_case_and_spaces_but_no_shorter() -> None:
    recent = RecentOutputs(1 << 20, VOCABULARY)
    recent.add("Kettle  & Crumb ", [[1, 2]])
    assert recent.trie("kettle & crumb") is not None
    for other in ("kettle", "kettle & crumb ltd", "kettle&crumb"):
        assert recent.trie(other) is None
    recent.add("", [[1, 2]])
    assert len(recent) == 1


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 60)), max_size=60),
    st.sampled_from([0, 1500, 4000, 40_000]),
)
def test_memory_is_bounded_and_the_least_recently_used_leaves(adds: list[tuple[int, int]], most: int) -> None:
    recent = RecentOutputs(most, VOCABULARY)
    for number, (company, size) in enumerate(adds):
        recent.add(str(company), [[number % 900] * size])
        assert recent.size <= most
    kept = [str(i) for i in range(9) if recent.trie(str(i)) is not None]
    assert len(kept) == len(recent)
    assert (recent.size == 0) == (not kept)


def test_the_one_that_was_asked_for_longest_ago_leaves_first() -> None:
    recent = RecentOutputs(10 * 1300, VOCABULARY)
    for name in "abcdefghij":
        recent.add(name, [[1]])
    assert len(recent) == 10
    assert recent.trie("a") is not None
    recent.add("k", [[1]])
    assert recent.trie("b") is None
    assert recent.trie("a") is not None


def test_old_texts_weigh_less_and_leave() -> None:
    recent = RecentOutputs(1 << 20, VOCABULARY)
    recent.add("a", [[5, 1], [5, 2]])
    for number in range(16):
        recent.add("a", [[100 + number]])
    recent.add("a", [[5, 3]])
    trie = recent.trie("a")
    assert trie is not None
    found = trie.following((5,))
    assert found is not None
    shares = dict(found[1])
    assert list(shares) == [3, 2, 1]
    assert 0.45 < shares[2] / shares[3] < 0.5
    for number in range(MOST_TEXTS):
        recent.add("a", [[200 + number]])
    trie = recent.trie("a")
    assert trie is not None
    assert trie.following((5,)) is None


def test_a_text_told_again_is_kept_once_and_is_new_again() -> None:
    recent = RecentOutputs(1 << 20, VOCABULARY)
    recent.add("a", [[5, 1]])
    size = recent.size
    recent.add("a", [[5, 1], [5, 1]])
    assert recent.size == size
    recent.add("a", [[5, 2]])
    recent.add("a", [[5, 1]])
    trie = recent.trie("a")
    assert trie is not None
    found = trie.following((5,))
    assert found is not None
    assert found[1][0][0] == 1
