"""What `eval creative --save` writes is what `bench.samples` reads."""

import pytest
from bidtrie.evaluation.creative import LabelledProduct, Written, save_texts

from bench.samples import read, table

PRODUCTS = [
    LabelledProduct("Fir & Co", "tea", "headline", "Tea | more tea.", "Drink it"),
    LabelledProduct("Öl", "oil", "headline", "Oil.", "Use it"),
]


def test_texts_side_by_side(tmp_path):
    for name, texts in (("a", ("One", "")), ("b", ("Two", "Zwei"))):
        save_texts(tmp_path / name, PRODUCTS, [Written(text, 1, 1, 1.0) for text in texts])
    first, second = read(tmp_path / "a"), read(tmp_path / "b")
    assert table(first, second, ("A", "B")).splitlines() == [
        "| product | A | B | reference |",
        "|---|---|---|---|",
        r"| **Fir & Co**: Tea \| more tea. | One | Two | Drink it |",
        "| **Öl**: Oil. | (nothing) | Zwei | Use it |",
    ]
    with pytest.raises(ValueError, match="not the same product"):
        table(first, second[::-1], ("A", "B"))
