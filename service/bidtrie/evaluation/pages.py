"""Labelled page contexts: what `bidtrie eval targeting` reads.

A line is `expected[|expected…] TAB title [TAB description [TAB keywords [TAB app name]]]`; expected is a full path
(tiers joined by " > ") or a tier-1 name. Empty lines and lines that begin with `#` are skipped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from bidtrie.errors import InvalidInput, Violation
from bidtrie.requests import PageContext
from bidtrie.trie.catalog import Catalog


class PageField(StrEnum):
    """What a page's context consists of, by the names of `PageContext`."""

    TITLE = "title"
    DESCRIPTION = "description"
    KEYWORDS = "keywords"
    APP_NAME = "app_name"


@dataclass(frozen=True, slots=True)
class Page:
    """A context and the paths that are right for it."""

    expected: tuple[tuple[str, ...], ...]
    context: PageContext


def with_only(pages: Sequence[Page], fields: Collection[PageField]) -> list[Page]:
    """The pages with nothing but some of their fields; those that have none of them are left out."""
    nothing: dict[str, str | tuple[str, ...]] = {PageField.KEYWORDS: ()}
    cleared = {name: nothing.get(name, "") for name in PageField if name not in fields}
    less = [replace(page, context=replace(page.context, **cleared)) for page in pages]  # type: ignore[arg-type]
    return [page for page in less if not page.context.is_empty()]


def read_pages(file: Path, catalog: Catalog | None = None) -> list[Page]:
    """Pages of a TSV file. With a catalog, every expected path must exist in it.

    Raises InvalidInput with the numbers of the lines that are wrong.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidInput.of(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput.of(str(file), f"is not UTF-8 text: {error}") from error
    known = {segment.path for segment in catalog.segments} if catalog else None
    pages: list[Page] = []
    problems: list[Violation] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = [column.strip() for column in line.split("\t")]
        where = f"{file.name}:{number}"
        if not 2 <= len(columns) <= 5:
            problems.append(
                Violation(where, f"expected 2 to 5 columns separated by tabs, found {len(columns)}")
            )
            continue
        labels, title, description, keywords, app_name = columns + [""] * (5 - len(columns))
        expected = tuple(tuple(label.strip().split(" > ")) for label in labels.split("|"))
        unknown = [] if known is None else [" > ".join(path) for path in expected if path not in known]
        if unknown:
            problems.append(Violation(where, f"not in the catalog: {'; '.join(unknown)}"))
        elif not (title or description or keywords or app_name):
            problems.append(Violation(where, "the context is empty"))
        else:
            words = tuple(word.strip() for word in keywords.split(",") if word.strip())
            context = PageContext(title=title, description=description, keywords=words, app_name=app_name)
            pages.append(Page(expected, context))
    if problems:
        raise InvalidInput.of_lines(str(file), problems)
    if not pages:
        raise InvalidInput.of(str(file), "holds no page")
    return pages
