"""The report: what it says is what was compressed and measured, and it needs nothing but itself."""

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.cli.app import app
from bidtrie.compress import report as reports
from bidtrie.compress.allocation import Budget
from bidtrie.compress.budget import FORMATS, analyse, formats_of
from bidtrie.compress.compressor import compress
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.measured import DENSE, measure
from bidtrie.compress.report import report_of, write_report
from bidtrie.errors import InvalidInput
from bidtrie.evaluation.creative import LabelledProduct
from bidtrie.models.artefact_writer import write_artefact
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.compression_record import CompressionRecord
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.load import load_checkpoint
from models.tiny_artefacts import write_tiny_artefact
from reference.tiny_models import save_tiny_model
from typer.testing import CliRunner

PRODUCTS = [
    LabelledProduct("<b>Kettle</b>", "homeware", "headline", "A kettle & a half.", "Boil"),
    LabelledProduct("Oar", "boats", "headline_long", "An oar.", "Row"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and two artefacts of it: one by a budget, one uniform."""
    folder = tmp_path_factory.mktemp("report")
    save_tiny_model("llama", folder / "source")
    source = load_checkpoint(folder / "source")
    sequences = np.random.default_rng(0).integers(0, 256, (4, 32))
    costs = CostTable({format.name: 1.0 for format in FORMATS}, 1)
    analysis = analyse(source, sequences, costs, feedback=False, seed=0, progress=lambda *each: None)
    budget = Budget(4.0, "bits")
    allocation = analysis.allocate(budget)
    linears = list(compress(source, formats_of(allocation, source, GroupFormat(8, 32))))
    record = CompressionRecord(
        method="rtn",
        options={"budget_bits": 4.0, "note": "<script>alert(1)</script>"},
        reference_name=source.name,
        reference_hash=source.content_hash,
        linears={each.name: each.record for each in linears},
        allocation=analysis.record(budget, allocation),
    )
    write_artefact(folder / "budgeted", source, {each.name: each.tensor for each in linears}, record)
    write_tiny_artefact(folder / "uniform", source, GroupFormat(4, 32))
    return folder


def artefacts_of(folder: Path) -> dict[str, Checkpoint]:
    return {name: load_checkpoint(folder / name) for name in ("budgeted", "uniform")}


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    artefacts = artefacts_of(folder)
    sequences = np.random.default_rng(1).integers(0, 256, (2, 32))
    measured = measure(
        load_checkpoint(folder / "source"), artefacts, sequences, PRODUCTS, 1, lambda *each: None
    )
    assert list(measured) == [DENSE, *artefacts]
    return report_of(artefacts, measured, [each.company for each in PRODUCTS], "random tokens")


def test_the_allocation_survives_the_file(folder: Path) -> None:
    record = load_checkpoint(folder / "budgeted").compression
    assert record is not None
    assert record.allocation is not None
    assert record.allocation["budget"] == {"limit": 4.0, "unit": "bits"}
    assert len(record.allocation["losses"]) == 14
    uniform = load_checkpoint(folder / "uniform").compression
    assert uniform is not None
    assert uniform.allocation is None


def test_figures(folder: Path, found: dict[str, Any]) -> None:
    budgeted, uniform = found["artefacts"]
    assert found["dense"]["ratio_perplexity"] == 1
    assert found["dense"]["tokens"] == 62
    for each in (budgeted, uniform):
        assert each["ratio_perplexity"] == pytest.approx(each["perplexity"] / found["dense"]["perplexity"])
        assert each["divergence_nats"] > 0
        assert 0 < each["same_first_token"] <= 1
        assert each["decode_ms"] > 0
        assert len(each["samples"]) == 2
    tensors = load_checkpoint(folder / "budgeted").tensors
    for layer in budgeted["layers"]:
        members = [t for n, t in tensors.items() if f"layers.{layer['layer']}." in n and len(t.shape) == 2]
        weights = sum(t.shape[0] * t.shape[1] for t in members)
        assert layer["bits_per_weight"] == pytest.approx(8 * sum(t.nbytes for t in members) / weights)
    total = sum(each["predicted_loss"] for each in budgeted["layers"])
    assert total == pytest.approx(budgeted["allocation"]["predicted_loss"], rel=1e-3)
    assert [each["predicted_loss"] for each in uniform["layers"]] == [None, None]
    assert all(each["relative_error"] > 0 for each in uniform["layers"])


class Page(html.parser.HTMLParser):
    """What tags a page has, and whether it asks for anything from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "srcset")]


def test_page(found: dict[str, Any], tmp_path: Path) -> None:
    beside = write_report(found, tmp_path / "report.html")
    assert json.loads(beside.read_text()) == json.loads(json.dumps(found))
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    # Front, two pictures of layers, one of the check.
    assert page.tags.count("img") == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "url(" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text, "texts from files are escaped"
    assert "&lt;b&gt;Kettle&lt;/b&gt;" in text
    assert page.tags.count("tr") == 4 + 3 + 2 * 3
    assert "Budget 4 bits a weight" in text
    assert re.search(r"Rank correlation \(Spearman\): all -?\d\.\d\d, int4-g64 ", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_without_measurements(folder: Path, tmp_path: Path) -> None:
    found = report_of(artefacts_of(folder))
    assert found["dense"] is None
    assert "perplexity" not in found["artefacts"][0]
    write_report(found, tmp_path / "report.html")
    assert Page((tmp_path / "report.html").read_text()).tags.count("img") == 3


def test_models_that_are_not_compressed(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="source: is not compressed, expected a folder that bidtrie"):
        report_of({"source": load_checkpoint(folder / "source")})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("report.txt", "expected a name that ends in .html"), ("no/report.html", "no such folder")],
)
def test_files_that_cannot_be_written(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=f"--out: .*{expected}"):
        reports.check_report(tmp_path / name)


def test_out_of_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(
        InvalidInput, match=r"--out: .*report\.json cannot be written: No space left on device"
    ):
        write_report(report_of(artefacts_of(folder)), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def run(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["model", "report", *map(str, arguments), "--json"])
    if result.exception is not None:
        raise result.exception
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_command(folder: Path, tmp_path: Path) -> None:
    lines = ["company,industry,type,desc,output"]
    lines += [f"Firm {i},shops,headline,<company> sells item {i} in every size,Item {i}" for i in range(20)]
    products = tmp_path / "products.csv"
    products.write_text("\n".join(lines) + "\n")
    models = (folder / "budgeted", folder / "uniform")
    printed = run(
        *models, "--reference", folder / "source", "--products", products, "--out", tmp_path / "r.html"
    )
    written = json.loads(Path(printed["json"]).read_text())
    assert [each["name"] for each in written["artefacts"]] == ["budgeted", "uniform"]
    assert written["measured_on"].startswith("products.csv, ")
    assert written["dense"]["tokens"] % 255 == 0
    assert len(written["products"]) == 6
    run(models[1], "--out", tmp_path / "plain.html")

    def fails(expected: str, *arguments: object) -> None:
        with pytest.raises(InvalidInput, match=expected):
            run(*arguments, "--out", tmp_path / "r.html")

    fails("--products: is missing, expected both", models[0], "--reference", folder / "source")
    fails("models: uniform, uniform, expected folders of different names", models[1], models[1])
    fails("--sequences: 0, expected 1 or more", models[1], "--sequences", 0)
    products.write_text("\n".join(lines[:2]) + "\n")
    fails(
        "--products: products.csv holds fewer than 256 tokens",
        *(models[1], "--reference", folder / "source", "--products", products),
    )
