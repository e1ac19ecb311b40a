"""Cache keys: no two different sets of parts share one, and equal ones do, in every process."""

import subprocess
import sys
from enum import StrEnum
from typing import Any

import pytest
from bidtrie.cache.key import Part, cache_key
from hypothesis import given
from hypothesis import strategies as st


class Colour(StrEnum):
    RED = "red"


SCALARS = st.one_of(
    st.text(max_size=4), st.integers(-3, 3), st.sampled_from([0.0, 1.0, -1.5]), st.booleans(), st.none()
)
PARTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


def typed(part: Any) -> Any:
    """Distinguishes what Python's == does not: 1, 1.0 and True."""
    return tuple(typed(item) for item in part) if isinstance(part, tuple) else (type(part).__name__, part)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), "ab"),
        (("a", "b"), "ab"),
        ((("a", "b"),), ("a", "b")),
        ((("a",), ("b",)), (("a", "b"), ())),
        (("a", "b", ""), ("a", "b")),
        (("a", ""), ("", "a")),
        (("a,1", "b"), ("a", "1,b")),
        ((), None),
        ("", None),
        (1, "1"),
        (1, 1.0),
        (1, True),
        (1.0, True),
        (0, False),
        (0.0, -0.0),
        (12, (1, 2)),
        ("s1:a", "a"),
        ("é", "e\u0301"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_parts_that_differ_have_different_keys(one: Part, other: Part) -> None:
    assert cache_key(part=one) != cache_key(part=other)


def test_the_order_of_the_names_does_not_matter_but_the_names_do() -> None:
    assert cache_key(a="1", b="2") == cache_key(b="2", a="1")
    assert cache_key(a="1", b="2") != cache_key(a="2", b="1")
    assert cache_key(ab="c") != cache_key(a="bc")
    assert cache_key(a=None) != cache_key()


def test_a_part_cannot_pose_as_the_next_ones_name() -> None:
    assert cache_key(a="x", b="y") != cache_key(a="xs1:bs1:y")
    assert cache_key(a=("x", "b", "y")) != cache_key(a="x", b="y")


def test_a_member_of_an_enumeration_counts_as_its_value() -> None:
    assert cache_key(part=Colour.RED) == cache_key(part="red")
    assert cache_key(part=(Colour.RED, "blue")) == cache_key(part=("red", "blue"))


@given(st.dictionaries(st.sampled_from("abc"), PARTS), st.dictionaries(st.sampled_from("abc"), PARTS))
def test_keys_agree_exactly_where_parts_do(one: dict[str, Part], other: dict[str, Part]) -> None:
    same = {name: typed(part) for name, part in one.items()} == {n: typed(p) for n, p in other.items()}
    assert (cache_key(**one) == cache_key(**other)) == same


@given(
    st.lists(st.text("ab,;:0123", max_size=3), max_size=4),
    st.lists(st.text("ab,;:0123", max_size=3), max_size=4),
)
def test_lists_of_texts_are_unambiguous(one: list[str], other: list[str]) -> None:
    assert (cache_key(part=tuple(one)) == cache_key(part=tuple(other))) == (one == other)


def test_a_key_is_the_same_in_another_process() -> None:
    code = "from bidtrie.cache.key import cache_key; print(cache_key(b=(1, 'x', None), a='é', c=0.8))"
    environment = {"PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment, text=True
    )
    assert printed.stdout.strip() == cache_key(a="é", b=(1, "x", None), c=0.8)
    assert len(printed.stdout.strip()) == 32


@pytest.mark.parametrize("part", [b"bytes", ["list"], {"a": 1}, frozenset({"a"}), object()])
def test_other_types_are_refused(part: Any) -> None:
    with pytest.raises(TypeError, match="a cache key cannot hold"):
        cache_key(part=part)
    with pytest.raises(TypeError, match="a cache key cannot hold"):
        cache_key(part=("text", part))
