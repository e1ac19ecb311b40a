"""docs/settings.md against `Settings`: every row of the table, and the sample file."""

import re
import tomllib
from pathlib import Path

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.settings import Settings, default_of, flag_of, load_settings, variable_of
from deploy.prometheus_files import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def row(name: str) -> str:
    """The table's row of a setting."""
    meaning = (Settings.model_fields[name].description or "").replace("|", "\\|")
    return f"| `{name}` | `{flag_of(name)}` | `{variable_of(name)}` | {default_of(name)} | {meaning} |"


def rows(page: str) -> list[str]:
    return re.findall(r"^\| `\w+` \| `--.*\|$", page, flags=re.MULTILINE)


def sample(page: str) -> str:
    (found,) = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_table_is_that_of_the_settings() -> None:
    """A row that is missing or wrong is in the failure's text as it has to be: paste it."""
    assert rows(PAGE) == [row(name) for name in Settings.model_fields]
    assert len(rows(PAGE)) > 30


def test_a_drift_is_noticed() -> None:
    drifted = PAGE.replace("| 50051 |", "| 50052 |")
    assert rows(drifted) != [row(name) for name in Settings.model_fields]


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_flags_and_variables_of_the_table_work() -> None:
    for name in Settings.model_fields:
        value = Settings.model_fields[name].default
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            assert load_settings(None, {variable_of(name): str(value)}) == Settings()
    with pytest.raises(InvalidInput, match=r"^BIDTRIE_KV_SLOTS: "):
        load_settings(None, {variable_of("kv_slots"): "1"})
    with pytest.raises(InvalidInput, match=r"^--kv-slots: "):
        load_settings(None, {}, {"kv_slots": 1})


def test_the_sample_is_a_file_that_serve_takes(tmp_path: Path) -> None:
    file = tmp_path / "bidtrie.toml"
    file.write_text(sample(PAGE), encoding="utf-8")
    settings = load_settings(file, {})
    values = tomllib.loads(sample(PAGE))
    assert len(values) > 8
    assert settings.catalogs == ("iab-content",)
    # But for what has no default, the sample shows what holds anyway.
    given = settings.model_dump()
    assert {name for name in values if given[name] != Settings().model_dump()[name]} == {
        "catalogs",
        "threads",
    }


@pytest.mark.parametrize("header", ["[serve]", "[bidtrie.serve]", "[[serve]]"])
def test_a_header_above_the_settings_is_explained(tmp_path: Path, header: str) -> None:
    file = tmp_path / "bidtrie.toml"
    file.write_text(f"{header}\n{sample(PAGE)}", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"bidtrie\.toml: \w+: .*top level"):
        load_settings(file, {})
