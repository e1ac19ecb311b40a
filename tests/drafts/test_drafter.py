"""Trees against brute force, the laws that every tree keeps, and the trigger's choices."""

from collections.abc import Sequence

import numpy as np
import pytest
from bidtrie.creative.constraint import Constraint, TextState
from bidtrie.drafts.drafter import Drafter, DraftTree, Root, Source
from bidtrie.drafts.drafting import Drafting
from bidtrie.drafts.phrase_trie import Following, PhraseTrie, start
from bidtrie.drafts.request_text import request_phrases, title_case
from bidtrie.drafts.trigger import LOOK_EVERY, REST_AFTER, Trigger
from bidtrie.requests import CreativeText, GenerateQuery, Product, Slot, SlotType
from creative.fakes import NASTY, FakeTokenizer, parts, query
from hypothesis import given
from hypothesis import strategies as st

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY, _ = parts(TOKENIZER)
SIZE = VOCABULARY.size
RULE = Constraint(VOCABULARY, ["20% off for 24 hours"])


def ids(*tokens: bytes) -> list[int]:
    return [TOKENIZER.id_of(token) for token in tokens]


def root(*tokens: bytes, limit: int = 90, depth: int = 100) -> Root:
    state = TextState()
    for token in ids(*tokens):
        state = RULE.advance(state, token)
    return Root(state, tuple(ids(*tokens)), limit, depth)


def drafter(*sources: object, most_nodes: int = 8, trigger: Trigger | None = None) -> Drafter:
    named = [Source(f"s{i}", each) for i, each in enumerate(sources)]  # type: ignore[arg-type]
    return Drafter(named, trigger or Trigger(), vocabulary=SIZE, sampled=False, most_nodes=most_nodes)


def cheap(nodes: int) -> float:
    """A step that costs nearly the same whatever its size."""
    return 1.0 + 1e-3 * nodes


def only(trees: list[DraftTree] | None) -> DraftTree:
    assert trees is not None
    assert len(trees) == 1
    return trees[0]


class Random:
    """Says anything, legal or not, of every context."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def following(self, context: Sequence[int]) -> Following:
        tokens = self._rng.choice(SIZE, 4, replace=False).tolist()
        return 1 + len(context) % 3, tuple((token, 0.25) for token in tokens)


@given(st.integers(0, 500), st.sampled_from([3, 8, 40]), st.integers(0, 3), st.integers(0, 12))
def test_no_tree_holds_what_its_path_forbids(seed: int, limit: int, depth: int, room: int) -> None:
    """Whatever the sources say: walked from the root, every node is allowed, no stop, in the limit, in the context."""
    roots = [root(b"a", limit=limit, depth=depth), root(b"ing", b" the", limit=limit, depth=depth)]
    making = drafter(Random(seed), Random(seed + 1), most_nodes=7)
    trees = making.grow(roots, RULE, room, cheap)
    if not room:
        assert trees is None
        return
    assert trees is not None
    assert sum(map(len, trees)) <= room
    for at, tree in zip(roots, trees, strict=True):
        assert len(tree) <= 7
        assert len(tree.guesses) == len(tree) + 1
        states, depths = [], []
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            assert parent < len(states)
            above, down = (at.state, 0) if parent < 0 else (states[parent], depths[parent])
            assert RULE.allowed(above)[token]
            assert not VOCABULARY.stop[token]
            state = RULE.advance(above, token)
            assert state.characters <= limit
            states.append(state)
            depths.append(down + 1)
        assert max(depths, default=0) <= depth
        below = list(zip(tree.tokens, tree.parents, strict=True))
        assert len(set(below)) == len(below), "no node has two equal children"


def test_random_sources_do_make_trees() -> None:
    """So the law above is about something: many trees have nodes, and many sayings were against the law."""
    trees = [only(drafter(Random(seed)).grow([root(b"a")], RULE, 8, cheap)) for seed in range(40)]
    assert sum(len(tree) for tree in trees) > 30
    said = {
        token for tree in trees for guess in tree.guesses for _, children in guess for token, _ in children
    }
    assert any(VOCABULARY.stop[token] or not VOCABULARY.legal[token] for token in said)


def trie(*texts: Sequence[int]) -> PhraseTrie:
    return PhraseTrie(((text, 1.0) for text in texts), SIZE)


def test_the_likeliest_nodes_are_taken_whatever_source_they_come_from() -> None:
    """All places that the sources allow, with their probabilities multiplied out, against what the tree took."""
    a, b, c, the, of = ids(b"a", b" b", b" c", b" the", b" of the")
    first = trie([a, the, b], [a, the, c], [a, b, the], [b, of])
    second = trie([a, the, of], [the, c, b])
    trigger = Trigger()
    making = drafter(first, second, most_nodes=6, trigger=trigger)
    tree = only(making.grow([root(b"a")], RULE, 6, cheap))

    probabilities: dict[tuple[int, ...], float] = {}

    def walk(path: tuple[int, ...], chance: float) -> None:
        if len(path) > 6 or chance < 1e-3:
            return
        merged: dict[int, float] = {}
        for name, source in (("s0", first), ("s1", second)):
            context = path[-3:] if len(path) >= 3 else (start(SIZE), *path)
            found = source.following(context)
            if found is not None:
                rate = trigger.rates(name, False)[found[0] - 1].value
                for token, share in found[1]:
                    merged[token] = 1 - (1 - merged.get(token, 0.0)) * (1 - rate * share)
        for token, share in merged.items():
            probabilities[(*path, token)] = chance * share
            walk((*path, token), chance * share)

    walk((a,), 1.0)
    taken, paths = set(), []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*((a,) if parent < 0 else paths[parent]), token))
        taken.add(paths[-1])
    assert len(taken) == 6
    least = min(probabilities[path] for path in taken)
    assert all(p <= least + 1e-12 for path, p in probabilities.items() if path not in taken)
    assert len(probabilities) > 8


def test_room_goes_to_the_text_that_uses_it_best() -> None:
    known = trie(ids(b"a", b" b", b" c", b" the"))
    trees = drafter(known).grow([root(b"ing"), root(b"a")], RULE, 3, cheap)
    assert trees is not None
    assert [tree.tokens for tree in trees] == [[], ids(b" b", b" c", b" the")]
    assert trees[1].parents == [-1, 0, 1]


def linear(node: float) -> object:
    return lambda nodes: 1.0 + node * nodes


@pytest.mark.parametrize("price", [0.02, 0.1, 0.3, 1.0, 10.0])
def test_the_tree_is_the_best_buy_of_all_sizes(price: float) -> None:
    """Tokens a second of every prefix of the largest tree, against the size that was chosen."""
    begin = start(SIZE)
    texts = [[begin, *ids(b"a", x)] for x in (b" b", b" c", b" the", b" of the")]
    texts += 8 * [[begin, *ids(b"a", b" b", b" c", b" the", b" a")]]
    trigger = Trigger()
    trigger._node_s = 0.0
    full = only(drafter(trie(*texts), most_nodes=50).grow([root(b"a")], RULE, 50, cheap))
    chosen = only(
        drafter(trie(*texts), most_nodes=50, trigger=trigger).grow([root(b"a")], RULE, 50, linear(price))
    )  # type: ignore[arg-type]
    assert full.tokens[: len(chosen)] == chosen.tokens
    rates = Trigger().rates("s0", False)
    chances: list[float] = []
    for i, (token, parent) in enumerate(zip(full.tokens, full.parents, strict=True)):
        guess = full.guesses[parent + 1]
        share = next(share for _, children in guess for t, share in children if t == token)
        rate = guess[0][0].value
        assert rate in {each.value for each in rates}
        chances.append(rate * share * (1.0 if parent < 0 else chances[parent]))
        assert chances == sorted(chances, reverse=True), i
    value = [(1 + sum(chances[:n])) / (1 + price * (1 + n)) for n in range(len(chances) + 1)]
    # The trigger's caution: it may stop a little early, and never goes past the best.
    assert value[len(chosen)] >= 0.97 * max(value)
    assert len(chosen) <= int(np.argmax(value))
    assert (len(chosen) == 0) == (price >= 1.0)


def test_sources_that_are_always_wrong_are_soon_not_fed_and_rarely_asked() -> None:
    trigger = Trigger()
    known = trie(ids(b"a", b" b"))
    fed = asked = 0
    for _ in range(2000):
        making = drafter(known, trigger=trigger)
        trees = making.grow([root(b"a")], RULE, 8, linear(0.08))  # type: ignore[arg-type]
        if trees is not None:
            asked += 1
            fed += len(trees[0])
            trigger.learn(trees[0].guesses[0], ids(b" c")[0])
    assert fed < 20
    assert asked <= REST_AFTER + fed + 2000 / LOOK_EVERY + 20

    # The text becomes predictable: the trigger hears of it, though nothing is fed.
    for _ in range(LOOK_EVERY * 40):
        trees = drafter(known, trigger=trigger).grow([root(b"a")], RULE, 8, linear(0.08))  # type: ignore[arg-type]
        if trees is not None:
            trigger.learn(trees[0].guesses[0], ids(b" b")[0])
            if len(trees[0]):
                break
    else:
        raise AssertionError("it never recovers")


def test_decisions_are_counted() -> None:
    known = trie(ids(b"a", b" b"))
    making = drafter(known)
    making.grow([root(b"a")], RULE, 8, cheap)
    making.grow([root(b"a")], RULE, 8, linear(50.0))  # type: ignore[arg-type]
    making.grow([root(b" of the")], RULE, 8, cheap)
    making.grow([root(b"a")], RULE, 0, cheap)
    assert making.counts.decisions == {"drafted": 1, "not_worth": 1, "no_draft": 2}
    assert making.counts.nodes == 1
    making.counts.verified(1)
    assert (making.counts.trees, making.counts.accepted, making.counts.lengths) == (1, 1, {1: 1})


def encode(text: str) -> list[int]:
    return list(text.encode())


def asked_by(company: str) -> GenerateQuery:
    return GenerateQuery(Product("Lamp", company=company), (Slot("a", SlotType.HEADLINE, 30),))


def test_a_request_knows_its_own_text_as_it_stands_and_in_title_case() -> None:
    product = Product(description="Bread of the day", offers=("two for one",))
    known = request_phrases(query(product=product), encode, 256)
    for context, token in (("Bread", " "), (" the d", "a"), ("wo f", "o"), ("One", None), ("f the D", "a")):
        found = known.following(tuple(encode(context)[-3:]))
        assert found is not None
        assert token is None or ord(token) in dict(found[1]), context
    begin = known.following((start(256),))
    assert begin is not None
    assert {chr(token) for token, _ in begin[1]} >= {"B", "t", "T"}
    assert title_case("the art of bread, in a day") == "The Art of Bread, in a Day"


def test_what_was_written_for_an_advertiser_is_drafted_for_it_alone() -> None:
    drafting = Drafting(encode, 256, examples=["an example"])
    drafting.written(asked_by("Acme"), [CreativeText("a", 0, "zebra", -1.0, 5)])

    def knows_zebra(company: str) -> bool:
        found = [source.phrases.following(encode("zeb")) for source in drafting.sources(asked_by(company))]
        return any(each is not None and each[0] == 3 for each in found)

    assert knows_zebra("ACME")
    assert not knows_zebra("Other")
    assert not knows_zebra("")
    assert {source.name for source in drafting.sources(asked_by("acme"))} == {"request", "recent", "prompt"}


def test_drafts_can_be_switched_off() -> None:
    off = Drafting(encode, 256, draft_nodes=0)
    off.written(asked_by("Acme"), [CreativeText("a", 0, "zebra", -1.0, 5)])
    assert off.sources(asked_by("Acme")) == []
    assert off.drafter(asked_by("Acme"), []) is None
    assert len(off.recent) == 0
    huge = Drafting(encode, 1 << 22)
    assert huge.drafter(asked_by("Acme"), []) is None, "its keys would not fit"
