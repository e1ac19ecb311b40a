"""The grammar that llama.cpp chooses from, expanded by brute force."""

import re

from bidtrie.trie.catalog import Catalog, Segment

from bench.peers.targeting_grammar import tiered_grammar

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([a-z0-9-]+)|([()|?])')


def _catalog(*paths: tuple[str, ...]) -> Catalog:
    return Catalog("test", [Segment(str(i), path[-1], path) for i, path in enumerate(paths)])


def _language(grammar: str) -> list[str]:
    """Every text that a grammar of literals, rules, groups, alternatives and `?` allows, once for each way."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())

    def expand(rule: str) -> list[str]:
        tokens = [match.groups() for match in _TOKEN.finditer(rules[rule])]
        texts, end = alternatives(tokens, 0)
        assert end == len(tokens)
        return texts

    def alternatives(tokens: list[tuple[str | None, ...]], at: int) -> tuple[list[str], int]:
        found: list[str] = []
        texts = [""]
        while at < len(tokens):
            literal, rule, mark = tokens[at]
            if mark == ")":
                break
            at += 1
            if mark == "|":
                found, texts = found + texts, [""]
                continue
            if literal is not None:
                item = [literal.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")]
            elif rule is not None:
                item = expand(rule)
            else:
                assert mark == "("
                item, at = alternatives(tokens, at)
                at += 1
            if at < len(tokens) and tokens[at][2] == "?":
                item, at = ["", *item], at + 1
            texts = [text + rest for text in texts for rest in item]
        return found + texts, at

    return expand("root")


_PATHS = (
    ("Food & Drink",),
    ("Food & Drink", "Baking"),
    ("Food & Drink", "Baking", 'The "big" loaf'),
    ("Food & Drink", "Baking", "Bread"),
    ("Food & Drink", "Wine"),
    ("Sports", "Racing", "Rallies"),
    ("Sports\\Games",),
)


def test_its_texts_are_the_paths_and_no_others() -> None:
    texts = _language(tiered_grammar(_catalog(*_PATHS)))
    assert sorted(texts) == sorted(" " + " > ".join(path) + "\n" for path in _PATHS)


def test_topics_that_are_no_segments_are_no_texts() -> None:
    grammar = tiered_grammar(_catalog(*_PATHS))
    assert " Sports\n" not in _language(grammar)
    # The expansion sees it if they are.
    wrong = "\n".join(line + "?" if '"Sports"' in line else line for line in grammar.splitlines())
    assert " Sports\n" in _language(wrong)


def test_a_name_stands_once() -> None:
    grammar = tiered_grammar(_catalog(*_PATHS))
    assert grammar.count('"Food & Drink"') == grammar.count('"Baking"') == 1
