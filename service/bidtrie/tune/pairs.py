"""Training pairs: pages with the segments that fit them, and products with an ad's text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bidtrie.errors import InvalidInput
from bidtrie.evaluation.creative import LabelledProduct, read_products
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
        """Two parts, the second one with about this share of each kind, spread evenly over the files' order."""
        kept, held = [], []
        for each in (self.pages, self.products):
            # Where the running count of held-out pairs goes up.
            out = [int((i + 1) * share) > int(i * share) for i in range(len(each))]
            kept.append(tuple(pair for pair, is_out in zip(each, out, strict=True) if not is_out))
            held.append(tuple(pair for pair, is_out in zip(each, out, strict=True) if is_out))
        return Pairs(*kept), Pairs(*held)  # type: ignore[arg-type]


def read_pairs(files: Sequence[Path], catalog: Catalog | None) -> Pairs:
    """Pairs of files: .tsv as `bidtrie eval targeting` reads it, .csv as `bidtrie eval creative` does.

    Raises InvalidInput naming file and line; pages need a catalog, which has to hold every expected path.
    """
    pages: list[Page] = []
    products: list[LabelledProduct] = []
    for file in files:
        if file.suffix == _PAGES:
            if catalog is None:
                raise InvalidInput.of("--catalog", f"is missing, expected the catalog of the pages in {file}")
            pages += read_pages(file, catalog)
        elif file.suffix == _PRODUCTS:
            products += read_products(file)
        else:
            raise InvalidInput.of(str(file), f"expected a name that ends in {_PAGES} or {_PRODUCTS}")
    return Pairs(tuple(pages), tuple(products))
