"""Weights in groups: their format, and every element against its definition."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models import group_tensor
from bidtrie.models.fields import Fields
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from numpy.typing import NDArray
from reference.group_tensors import FORMATS, random_group_tensor, slow_dequantize

#: Row lengths: one group, whole groups, short last groups.
WIDTHS = (16, 48, 96, 272, 576)


def bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """So that -0 and 0 differ."""
    return values.view(np.uint32)


@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_element_is_as_defined(format: GroupFormat, cols: int) -> None:
    tensor = random_group_tensor(format, 3, cols, seed=cols)
    assert tensor.problem() is None
    values = tensor.dequantize()
    assert values.dtype == np.float32
    np.testing.assert_array_equal(bits(values), bits(slow_dequantize(tensor)))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_chunks_of_rows_change_nothing(format: GroupFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = random_group_tensor(format, 23, 80)
    whole = tensor.dequantize()
    monkeypatch.setattr(group_tensor, "_CHUNK_WEIGHTS", 80 * 5)
    assert len(list(group_tensor.row_chunks(23, 80))) == 5
    np.testing.assert_array_equal(bits(tensor.dequantize()), bits(whole))


BENDS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "codes": lambda array: array ^ np.uint8(1),
    "scales": lambda array: array * np.float16(2),
    "minimums": lambda array: -array,
    "table": lambda array: array[::-1].copy(),
    # The first two of four columns become the last two, and the other way round.
    "positions": lambda array: array ^ np.uint8(0b10_10_10_10),
}


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_array_matters(format: GroupFormat) -> None:
    tensor = random_group_tensor(format, 2, 96, seed=5)
    expected = slow_dequantize(tensor)
    for field, bend in BENDS.items():
        if (array := getattr(tensor, field)) is not None:
            bent = replace(tensor, **{field: bend(array)})
            assert not np.array_equal(bent.dequantize(), expected), field
            np.testing.assert_array_equal(bent.dequantize(), slow_dequantize(bent))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (GroupFormat(8, 32), 8.5),
        (GroupFormat(4, 32), 4.5),
        (GroupFormat(4, 16), 5),
        (GroupFormat(4, 32, minimum=True), 5),
        (GroupFormat(4, 64, table=True), 4.25 + 128 / (64 * 576)),
        (GroupFormat(4, 64, pattern="2:4"), 3.25),
        (GroupFormat(4, 64, pattern="1:4"), 1.75),
        # 2.25 scales' worth of columns take 3 scales.
        (GroupFormat(4, 256), 4 + 16 * 3 / 576),
    ],
    ids=str,
)
def test_bits_per_weight(format: GroupFormat, expected: float) -> None:
    tensor = random_group_tensor(format, 64, 576)
    assert tensor.bits_per_weight == pytest.approx(expected, rel=1e-12)
    assert tensor.nbytes * 8 == pytest.approx(expected * 64 * 576, rel=1e-12)


@pytest.mark.parametrize("field", ["scales", "minimums"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_is_finite(field: str, value: float) -> None:
    tensor = random_group_tensor(GroupFormat(4, 32, minimum=True), 4, 96)
    assert tensor.is_finite()
    bent = getattr(tensor, field).copy()
    bent[2, 1] = value
    assert not replace(tensor, **{field: bent}).is_finite()


def dense() -> GroupTensor:
    return random_group_tensor(GroupFormat(4, 32, minimum=True), 4, 96)


def sparse(pattern: str = "2:4") -> GroupTensor:
    return random_group_tensor(GroupFormat(4, 32, table=True, pattern=pattern), 4, 96)


@pytest.mark.parametrize(
    ("tensor", "changes", "message"),
    [
        (dense(), {"shape": (4, 97)}, r"shape is \[4, 97\], expected rows of a multiple of 16"),
        (dense(), {"shape": (4, 0)}, r"shape is \[4, 0\]"),
        (dense(), {"shape": (0, 96)}, r"shape is \[0, 96\]"),
        (dense(), {"shape": (4, 112)}, r"codes: uint8 \[4, 48\], expected uint8 \[4, 56\]"),
        (dense(), {"codes": np.zeros((4, 48), np.int8)}, r"codes: int8 \[4, 48\], expected uint8 \[4, 48\]"),
        (dense(), {"scales": np.zeros((4, 3), np.float32)}, "scales: float32"),
        (dense(), {"scales": np.zeros((4, 4), np.float16)}, r"expected float16 \[4, 3\]"),
        (dense(), {"minimums": None}, r"minimums: missing, expected float16 \[4, 3\]"),
        (dense(), {"minimums": np.zeros((3, 4), np.float16)}, r"minimums: float16 \[3, 4\]"),
        (dense(), {"table": np.zeros(16, np.int8)}, "table: given, expected none for int4-min-g32"),
        (dense(), {"positions": np.zeros((4, 24), np.uint8)}, "positions: given, expected none"),
        (sparse(), {"minimums": np.zeros((4, 3), np.float16)}, "minimums: given, expected none"),
        (sparse(), {"table": np.zeros(15, np.int8)}, r"table: int8 \[15\], expected int8 \[16\]"),
        (sparse(), {"table": np.full(16, 33, np.int8)}, "expected entries of -32 to 32"),
        (sparse(), {"table": np.full(16, -128, np.int8)}, "expected entries of -32 to 32"),
        (sparse(), {"positions": np.zeros((4, 11), np.uint8)}, r"positions: uint8 \[4, 11\], expected"),
        (sparse(), {"positions": np.full((4, 12), 0b11_10_01_01, np.uint8)}, "positions: not ascending"),
        (sparse(), {"positions": np.full((4, 12), 0b10_11_01_00, np.uint8)}, "positions: not ascending"),
        (sparse(), {"positions": np.full((4, 12), 0b11_10_01_00, np.uint8)}, None),
        (sparse("1:4"), {"positions": np.full((4, 6), 0, np.uint8)}, None),
    ],
)
def test_problems(tensor: GroupTensor, changes: dict[str, Any], message: str | None) -> None:
    assert tensor.problem() is None
    problem = replace(tensor, **changes).problem()
    if message is None:
        assert problem is None
    else:
        with pytest.raises(ModelError, match=message):
            raise ModelError(problem or "no problem was found")


def test_one_wrong_position_is_found_anywhere() -> None:
    tensor = sparse()
    assert tensor.positions is not None
    for place in [(0, 0), (3, 11), (2, 5)]:
        bent = tensor.positions.copy()
        bent[place] = bent[place] & 0b1111_0000 | 0b0000_0101
        problem = replace(tensor, positions=bent).problem()
        assert problem is not None
        assert "not ascending" in problem


@pytest.mark.parametrize(
    ("format", "name"),
    [
        (GroupFormat(8, 32), "int8-g32"),
        (GroupFormat(4, 32), "int4-g32"),
        (GroupFormat(4, 16, minimum=True), "int4-min-g16"),
        (GroupFormat(4, 96, table=True), "int4-table-g96"),
        (GroupFormat(4, 64, pattern="2:4"), "2:4-int4-g64"),
        (GroupFormat(4, 32, table=True, pattern="1:4"), "1:4-int4-table-g32"),
    ],
)
def test_names(format: GroupFormat, name: str) -> None:
    assert format.name == str(format) == name


def test_names_tell_formats_apart() -> None:
    assert len({format.name for format in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((3, 32), "bits is 3, expected 4 or 8"),
        ((4, 0), "group_size is 0, expected 16 or a multiple of 32 up to 256"),
        ((4, 48), "group_size is 48"),
        ((4, 288), "group_size is 288"),
        ((4, 32, False, False, "3:4"), "pattern is '3:4', expected one of 'dense', '2:4', '1:4'"),
        ((8, 32, True), "minimum is True with bits 8, expected False"),
        ((8, 32, False, True), "table is True with bits 8"),
        ((8, 32, False, False, "2:4"), "pattern is '2:4' with bits 8, expected 'dense'"),
        ((4, 32, True, True), "table is True with a minimum"),
        ((4, 32, True, False, "2:4"), "minimum is True with the pattern '2:4'"),
    ],
)
def test_impossible_formats(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GroupFormat(*values)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_json(format: GroupFormat) -> None:
    written = json.loads(json.dumps(format.to_json()))
    assert GroupFormat.from_json(Fields("file", written)) == format


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 5}, "file: q_proj: bits is 5, expected 4 or 8"),
        ({"bits": True}, "file: q_proj: bits is True, expected an integer"),
        ({"bits": None}, "bits is missing, expected an integer"),
        ({"group_size": "32"}, "group_size is '32', expected an integer"),
        ({"group_size": 32.0}, "group_size is 32.0, expected an integer"),
        ({"minimum": 0}, "minimum is 0, expected true or false"),
        ({"table": None}, "table is missing"),
        ({"pattern": 24}, "pattern is 24, expected a string"),
        ({"pattern": "x\n" * 99}, r"pattern is 'x\\nx"),
        ({"zero\n": 1}, r"the key 'zero\\n' is unknown, expected bits, group_size"),
    ],
)
def test_json_mistakes(changes: dict[str, Any], message: str) -> None:
    fields = Fields("file", {"q_proj": {**GroupFormat(4, 32).to_json(), **changes}})
    with pytest.raises(ModelError, match=message) as caught:
        GroupFormat.from_json(fields.section("q_proj"))
    assert str(caught.value).isprintable()
