"""Collecting everything that is wrong with a request, not the first thing only."""

from collections.abc import Iterable, Sequence

from bidtrie import language
from bidtrie.errors import InvalidInput, Violation

_SHOWN_CHARACTERS = 40


def shown(text: str) -> str:
    """A text as an error message may show it: escaped, cut."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return repr(cut)


class Violations:
    """The violations found so far; every check names the field as the proto does: `context.title`, `candidates[3]`."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        self._found.append(Violation(field, description))

    def raise_if_any(self) -> None:
        """Raise InvalidInput with all that was found."""
        if self._found:
            raise InvalidInput(self._found)

    def text(self, field: str, text: str, most: int, *, least: int = 0) -> str:
        """A text of `least` to `most` characters (Unicode code points) without NUL."""
        if len(text) > most:
            self.add(field, f"must have at most {most:,} characters, has {len(text):,}")
        elif len(text) < least:
            self.add(field, "must not be empty")
        if "\0" in text:
            self.add(field, "must not hold a NUL character")
        return text

    def texts(
        self, field: str, texts: Sequence[str], most_texts: int, most: int, *, least: int = 0
    ) -> tuple[str, ...]:
        """At most `most_texts` texts; where there are too many they are not looked at one by one."""
        if len(texts) > most_texts:
            self.add(field, f"must have at most {most_texts:,} entries, has {len(texts):,}")
            return ()
        for i, text in enumerate(texts):
            self.text(f"{field}[{i}]", text, most, least=least)
        return tuple(texts)

    def between(self, field: str, value: float, low: float, high: float, what: str = "") -> None:
        """A number in a closed range; NaN is outside of every range."""
        if not low <= value <= high:
            self.add(field, f"must be {low:,} to {high:,}{what and ' ' + what}, is {value:,}")

    def one_of(self, field: str, value: int, known: Iterable[int]) -> None:
        """A value of an enum: proto3 lets unknown numbers through."""
        if value not in known:
            self.add(field, f"is not a known value: {value}")

    def language(self, field: str, tag: str) -> str:
        """A BCP 47 tag, or nothing; returned in canonical case."""
        if not tag:
            return ""
        problem = language.problem_with(tag)
        if problem is not None:
            self.add(field, f"{problem}; is {shown(tag)}")
            return ""
        return language.canonical(tag)
