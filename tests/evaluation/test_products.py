"""Labelled products: what is wrong is named, line by line."""

import pytest
from bidtrie.errors import BidtrieError, InvalidInput
from bidtrie.evaluation import creative
from bidtrie.evaluation.creative import check_metrics, read_products

HEADER = "company,industry,type,desc,output"


def test_the_name_stands_for_company(tmp_path):
    file = tmp_path / "ads.csv"
    file.write_text(f"{HEADER}\nFirm,tea,headline,<company> sells tea.,Tea by <company>\n")
    [product] = read_products(file)
    assert (product.description, product.reference) == ("Firm sells tea.", "Tea by Firm")


def test_all_wrong_lines_are_named(tmp_path):
    file = tmp_path / "ads.csv"
    rows = ("a,b,banner,d,e", "a,b,headline,d,e", "a,b,headline,,", "a,b")
    file.write_text("\n".join((HEADER, *rows)) + "\n")
    with pytest.raises(InvalidInput) as caught:
        read_products(file)
    found = [(each.field, each.description) for each in caught.value.violations]
    assert found == [
        ("ads.csv:2", "type is 'banner', expected one of headline, headline_long, description"),
        ("ads.csv:4", "desc, output: expected text, found nothing"),
        ("ads.csv:5", "type, desc, output: expected text, found nothing"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("company,type\n", "missing: industry, desc, output"), (f"{HEADER}\n", "holds no product")],
)
def test_nothing_to_read(tmp_path, text, message):
    file = tmp_path / "ads.csv"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_products(file)


@pytest.mark.parametrize("missing", [None, "nltk", "rouge_score", "sacrebleu"])
def test_a_missing_package_is_told_before_anything_is_written(monkeypatch, missing):
    monkeypatch.setattr(creative, "find_spec", lambda name: None if name == missing else name)
    if missing is None:
        check_metrics()
    else:
        with pytest.raises(BidtrieError, match=r'pip install "bidtrie\[bench\]"'):
            check_metrics()
