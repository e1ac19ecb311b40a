"""Costs of formats are measured once for a machine, and what is kept of them is checked."""

from pathlib import Path

import pytest
from bidtrie.compress import cost_table as costs
from bidtrie.compress.cost_table import CostTable, cost_table, measure
from bidtrie.models.group_format import GroupFormat
from reference.tiny_models import random_checkpoint

INT4, INT8 = GroupFormat(4, 32), GroupFormat(8, 64)
CONFIG = random_checkpoint(intermediate=100).config


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path))
    monkeypatch.setattr(costs, "_STACK_WEIGHTS", 200_000)


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    first = cost_table(CONFIG, [INT4, INT8], 1, lambda done, total: told.append((done, total)))
    assert told[0] == (0, 2)
    assert told[-1] == (2, 2)
    assert all(0 < value < 1000 for value in first.ms_per_million.values())
    monkeypatch.setattr(costs, "measure", lambda *arguments: pytest.fail("measured again"))
    assert cost_table(CONFIG, [INT4, INT8], 1) == first
    assert cost_table(CONFIG, [INT4], 1).ms_per_million == {INT4.name: first.ms_per_million[INT4.name]}
    assert len(list((tmp_path / "format-costs").iterdir())) == 1
    monkeypatch.undo()


def test_formats_are_compared_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is missing means that all are measured again."""
    cost_table(CONFIG, [INT4], 1)
    asked = []

    def fake(shapes: object, formats: list[GroupFormat], *rest: object) -> dict[str, float]:
        asked.append(formats)
        return {format.name: 0.25 for format in formats}

    monkeypatch.setattr(costs, "measure", fake)
    assert cost_table(CONFIG, [INT4, INT8], 1).milliseconds(INT4, 4_000_000) == 1.0
    assert asked == [[INT4, INT8]]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"ms_per_million": []}', '{"ms_per_million": {"int4-g32": "x"}}']
)
def test_damaged_files_are_measured_anew(tmp_path: Path, damage: str) -> None:
    cost_table(CONFIG, [INT4], 1)
    (file,) = (tmp_path / "format-costs").iterdir()
    file.write_text(damage)
    assert cost_table(CONFIG, [INT4], 1).ms_per_million[INT4.name] > 0
    assert "int4-g32" in file.read_text()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "file"))
    assert cost_table(CONFIG, [INT4], 1).ms_per_million[INT4.name] > 0


def test_fewer_bytes_take_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times the bytes, beyond any noise; the linear that no format fits (rows of 100) is left out."""
    monkeypatch.setattr(costs, "_STACK_WEIGHTS", 20_000_000)
    quarter = GroupFormat(4, 128, pattern="1:4")
    shapes = costs._layer_shapes(CONFIG)
    assert (64, 100) not in shapes
    assert len(shapes) == 6
    found = measure([(512, 512)], [quarter, GroupFormat(8, 16)], 1)
    assert found[quarter.name] < found["int8-g16"]


def test_unknown_formats_are_errors() -> None:
    with pytest.raises(KeyError):
        CostTable({}, 1).milliseconds(INT4, 1)
