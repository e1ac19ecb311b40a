"""The training pairs: complete, and nothing of the evaluation sets in them."""

import pytest
from bidtrie.evaluation.creative import LIMITS, read_products
from bidtrie.evaluation.pages import read_pages

from data.card import (
    CREATIVES,
    EVALUATION,
    PAGES,
    creative_rows,
    distinct,
    near,
    openings,
    page_lines,
    text_of,
    words,
)


@pytest.fixture(scope="module")
def pages() -> list[list[str]]:
    return page_lines(*PAGES)


@pytest.fixture(scope="module")
def tests() -> list[list[str]]:
    return page_lines(*sorted(EVALUATION.glob("pages*.tsv")))


def test_every_path_has_three_pages(pages: list[list[str]], tests: list[list[str]]) -> None:
    seen = [path for page in pages for path in page[0].split("|")]
    assert sum(len(read_pages(file)) for file in PAGES) == len(pages) > 3 * len(set(seen))
    assert {path for page in tests for path in page[0].split("|")} <= set(seen)
    assert min(seen.count(path) for path in set(seen)) >= 3


def test_no_page_leaks(pages: list[list[str]], tests: list[list[str]]) -> None:
    texts, judged = [text_of(page) for page in pages], [text_of(test) for test in tests]
    assert list(near(texts, judged)) == []
    assert list(near(texts)) == []
    # The control: a test page with another word is found in the training pages.
    assert list(near([*texts, f"{judged[5]} indeed"], judged)) != []
    assert list(near([*texts, texts[7].upper()])) != []


def test_titles_are_not_made_from_templates(pages: list[list[str]]) -> None:
    titles = [page[1] for page in pages if page[1]]
    assert distinct(titles, 2) > 0.8
    assert openings(titles) < 0.005
    # The control: a template with other nouns in it.
    assert openings([f"How to choose {title}" for title in titles]) > 0.9


def test_creatives_keep_their_limits() -> None:
    products = [product for file in CREATIVES for product in read_products(file)]
    rows = creative_rows(*CREATIVES)
    assert len({row["company"] for row in rows}) == len(rows) == len(products)
    for product in products:
        assert len(product.reference) <= LIMITS[product.type]
        numbers = {word for word in words(product.reference) if word.isdigit()}
        assert numbers <= set(words(f"{product.description} {product.company}"))
    assert distinct([product.reference for product in products], 2) > 0.8
