"""The request's own text as phrases: an ad quotes its product's facts, often with the capitals of a title."""

import re
from collections.abc import Callable, Sequence

from bidtrie.drafts.phrase_trie import PhraseTrie, start
from bidtrie.requests import GenerateQuery

Encode = Callable[[str], list[int]]

#: Tokens of a fact's beginning that are told as a text's beginning, too.
_BEGINNING = 6
#: Characters taken of each fact: the prompt has no room for more.
_MOST_CHARACTERS = 1500
_SMALL_WORDS = frozenset(
    re.findall(r"\w+", "a an and as at but by for from in into is of on or our the to with your")
)


def request_phrases(query: GenerateQuery, encode: Encode, vocabulary: int) -> PhraseTrie:
    """Company, name, description, offers, industry and audience, as they stand and in title case."""
    product = query.product
    facts = (product.company, product.name, product.description, *product.offers, product.industry)
    texts: list[tuple[list[int], float]] = []
    for fact in dict.fromkeys(
        " ".join(each.split())[:_MOST_CHARACTERS] for each in (*facts, *query.audience)
    ):
        if not fact:
            continue
        for text in dict.fromkeys([fact, title_case(fact)]):
            tokens = encode(" " + text)
            texts.append((tokens, 1.0))
            texts.append((_beginning(tokens, text, encode, vocabulary), 1.0))
    return PhraseTrie(texts, vocabulary)


def _beginning(tokens: Sequence[int], text: str, encode: Encode, vocabulary: int) -> list[int]:
    """The first tokens as a text's beginning, which has no space in front."""
    first, _, rest = text.partition(" ")
    return [start(vocabulary), *encode(f"{first} {rest[:40]}")[:_BEGINNING]]


def title_case(text: str) -> str:
    """English words with a capital in front, but for small ones after the first; the rest of a word as it is."""
    first, *others = text.split(" ")
    words = (word if word in _SMALL_WORDS else word[:1].upper() + word[1:] for word in others)
    return " ".join([first[:1].upper() + first[1:], *words])
