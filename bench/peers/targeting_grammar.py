"""A catalog as a grammar of llama.cpp (GBNF), one rule for each path that others go on from."""

from dataclasses import dataclass, field

from bidtrie.trie.catalog import SEPARATOR, Catalog


@dataclass
class _Tier:
    """A node of the tree of names."""

    children: "dict[str, _Tier]" = field(default_factory=dict)
    is_segment: bool = False


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def tiered_grammar(catalog: Catalog) -> str:
    """GBNF of all path texts, each after a space and ended by a newline, as our trie has them.

    A topic's rule holds its name once and its children below it, so that what is left to match shrinks tier by tier;
    paths that nothing goes on from stand in their parent's rule.
    """
    top = _Tier()
    for segment in catalog.segments:
        tier = top
        for name in segment.path:
            tier = tier.children.setdefault(name, _Tier())
        tier.is_segment = True
    rules: list[str] = []

    def alternatives(tier: _Tier, rule: str) -> str:
        found = []
        for i, (name, child) in enumerate(tier.children.items()):
            if not child.children:
                found.append(_quoted(name))
                continue
            below = f"{rule}-{i}"
            rest = f"({_quoted(SEPARATOR)} ({alternatives(child, below)}))"
            rules.append(f"{below} ::= {_quoted(name)} {rest}{'?' if child.is_segment else ''}")
            found.append(below)
        return " | ".join(found)

    root = f"root ::= {_quoted(' ')} ({alternatives(top, 'topic')}) {_quoted(chr(10))}"
    return "\n".join([root, *rules]) + "\n"
