"""Training pairs: pages with the segments that fit them, and products with an ad's text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bidtrie.errors import InvalidInput, Violation
from bidtrie.evaluation.creative import LIMITS, LabelledProduct, read_products
from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.trie.catalog import Catalog

_PAGES, _PRODUCTS = ".tsv", ".csv"


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a model learns from, or is judged by."""

    pages: tuple[Page, ...] = ()
    products: tuple[LabelledProduct, ...] = ()

    def __len__(self) -> int:
        return len(self.pages) + len(self.products)

    def split(self, share: float) -> tuple["Pairs", "Pairs"]:
        """Two parts, the second one with about this share of each kind, spread evenly over the files' order.

        Of two pairs of a kind and more, one at least is in it: there has to be something to judge by.
        """
        kept, held = [], []
        for each in (self.pages, self.products):
            count = max(int(len(each) * share), int(len(each) > 1))
            out = {(i + 1) * len(each) // count - 1 for i in range(count)}
            kept.append(tuple(pair for i, pair in enumerate(each) if i not in out))
            held.append(tuple(pair for i, pair in enumerate(each) if i in out))
        return Pairs(*kept), Pairs(*held)  # type: ignore[arg-type]


def read_pairs(files: Sequence[Path], catalog: Catalog | None) -> Pairs:
    """Pairs of files: .tsv as `bidtrie eval targeting` reads it, .csv as `bidtrie eval creative` does.

    Raises InvalidInput naming file and line; pages need a catalog, which has to hold every expected path; the texts of
    ads keep their type's limit, which is in the prompt.
    """
    pages: list[Page] = []
    products: list[LabelledProduct] = []
    for file in files:
        if file.suffix == _PAGES:
            if catalog is None:
                raise InvalidInput.of("--catalog", f"is missing, expected the catalog of the pages in {file}")
            pages += read_pages(file, catalog)
        elif file.suffix == _PRODUCTS:
            read = read_products(file)
            _check_lengths(file, read)
            products += read
        else:
            raise InvalidInput.of(str(file), f"expected a name that ends in {_PAGES} or {_PRODUCTS}")
    return Pairs(tuple(pages), tuple(products))


def _check_lengths(file: Path, products: Sequence[LabelledProduct]) -> None:
    problems = [
        Violation(
            f"{file.name}: output of {each.company!r}",
            f"has {len(each.reference)} characters, expected at most {LIMITS[each.type]} for {each.type}",
        )
        for each in products
        if len(each.reference) > LIMITS[each.type]
    ]
    if problems:
        raise InvalidInput.of_lines(str(file), problems)
