"""Rounding to nearest against brute force in float64, which tries every code of every weight."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from bidtrie.compress import round_to_nearest
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.tables import normal_table
from bidtrie.errors import ModelError
from bidtrie.models import group_tensor
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference.group_tensors import FORMATS, code_value, kept_columns, stored_code

Float32 = NDArray[np.float32]
DENSE = [format for format in FORMATS if format.pattern == "dense"]
SPARSE = [format for format in FORMATS if format.pattern != "dense"]
#: How far from the nearest a choice may be, relative to the group's largest magnitude: float32's rounding of the
#: division, where two values are nearly equally far.
SLACK = 1e-6


def normal(rows: int = 5, cols: int = 208, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, cols)) * rng.uniform(0.01, 3, (rows, 1))).astype(np.float32)


def farther_than_nearest(tensor: GroupTensor, weight: Float32) -> int:
    """How many weights have another code, of all that there are, whose value is nearer, for the stored scales."""
    wrong = 0
    for row in range(len(weight)):
        for index, column in enumerate(kept_columns(tensor, row)):
            group = column // tensor.format.group_size
            scale = float(tensor.scales[row, group])
            minimum = 0.0 if tensor.minimums is None else float(tensor.minimums[row, group])
            exact = float(weight[row, column])
            first = group * tensor.format.group_size
            largest = float(np.abs(weight[row, first : first + tensor.format.group_size]).max())
            distances = [
                abs(scale * code_value(tensor, code) + minimum - exact)
                for code in range(2**tensor.format.bits)
            ]
            wrong += distances[stored_code(tensor, row, index)] > min(distances) + SLACK * largest
    return wrong


def smaller_than_left_out(tensor: GroupTensor, weight: Float32) -> int:
    """How many fours keep other columns than the largest magnitudes, the lowest column first where they are equal."""
    kept = tensor.format.kept(4)
    wrong = 0
    for row in range(len(weight)):
        columns = kept_columns(tensor, row)
        for four in range(weight.shape[1] // 4):
            magnitudes = np.abs(weight[row, 4 * four : 4 * four + 4])
            best = max(
                itertools.combinations(range(4), kept),
                key=lambda chosen: (
                    sorted((magnitudes[c] for c in chosen), reverse=True),
                    [-c for c in chosen],
                ),
            )
            wrong += [column - 4 * four for column in columns[kept * four : kept * four + kept]] != list(best)
    return wrong


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_no_other_code_is_nearer(format: GroupFormat) -> None:
    weight = normal()
    tensor = quantize(weight, format)
    assert tensor.problem() is None
    assert farther_than_nearest(tensor, weight) == 0


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_brute_force_finds_codes_that_are_not_nearest(format: GroupFormat) -> None:
    weight = normal()
    tensor = quantize(weight, format)
    neighbours = replace(tensor, codes=tensor.codes ^ np.uint8(1))
    assert farther_than_nearest(neighbours, weight) > 100
    assert farther_than_nearest(replace(tensor, codes=np.roll(tensor.codes, 1, axis=0)), weight) > 50


@pytest.mark.parametrize("format", SPARSE, ids=str)
def test_the_largest_of_four_are_kept(format: GroupFormat) -> None:
    weight = normal()
    # Ties, zeros and equal magnitudes of both signs.
    weight[1] = np.random.default_rng(1).integers(-2, 3, weight.shape[1])
    weight[2] = 0
    tensor = quantize(weight, format)
    assert smaller_than_left_out(tensor, weight) == 0
    others = replace(tensor, positions=np.roll(tensor.positions, 1, axis=0))
    assert smaller_than_left_out(others, weight) > 50, "the comparison can fail"


def test_ties_keep_the_lowest_column() -> None:
    weight = np.tile(np.array([1, -2, 2, 2], np.float32), (1, 4))
    kept = quantize(weight, GroupFormat(4, 16, pattern="2:4")).dequantize() != 0
    np.testing.assert_array_equal(kept, np.tile([False, True, True, False], (1, 4)))
    kept = quantize(weight, GroupFormat(4, 16, pattern="1:4")).dequantize() != 0
    np.testing.assert_array_equal(kept, np.tile([False, True, False, False], (1, 4)))


def test_scales() -> None:
    """The ends of a group's range become the ends of the codes."""
    weight = np.zeros((1, 64), np.float32)
    weight[0, 3], weight[0, 40] = -6.35, 12.7
    weight[0, 9], weight[0, 50] = 3, -1
    int8 = quantize(weight, GroupFormat(8, 32))
    np.testing.assert_array_equal(int8.scales, np.array([[0.05, 0.1]], np.float16))
    assert int8.codes.view(np.int8)[0, [3, 40]].tolist() == [-127, 127]
    int4 = quantize(weight, GroupFormat(4, 32))
    np.testing.assert_array_equal(int4.scales, np.array([[6.35 / 8, -12.7 / 8]], np.float16))
    assert (int4.codes[0, 1] >> 4, int4.codes[0, 20] & 15) == (0, 0)
    affine = quantize(weight, GroupFormat(4, 32, minimum=True))
    np.testing.assert_array_equal(affine.scales, np.array([[9.35 / 15, 13.7 / 15]], np.float16))
    np.testing.assert_array_equal(affine.minimums, np.array([[-6.35, -1]], np.float16))
    table = quantize(weight, GroupFormat(4, 32, table=True))
    np.testing.assert_array_equal(table.scales, np.array([[6.35 / 32, 12.7 / 32]], np.float16))
    assert (table.codes[0, 1] >> 4, table.codes[0, 20] & 15) == (0, 15)


def test_sparse_scales_are_of_the_kept_weights() -> None:
    weight = np.tile(np.array([[8, 1, 1, 1] * 4], np.float32), (2, 1))
    weight[1, :4] = [0.5, 0.25, 0, 0]
    tensor = quantize(weight, GroupFormat(4, 16, pattern="1:4"))
    np.testing.assert_array_equal(tensor.dequantize()[0], [8, 0, 0, 0] * 4)


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        (GroupFormat(8, 32), GGMLQuantizationType.Q8_0),
        (GroupFormat(4, 32), GGMLQuantizationType.Q4_0),
        (GroupFormat(4, 32, minimum=True), GGMLQuantizationType.Q4_1),
    ],
    ids=str,
)
def test_as_good_as_gguf(format: GroupFormat, kind: GGMLQuantizationType) -> None:
    """The same grids as GGUF's, which rounds with the scale before it is rounded: ours is never worse."""
    weight = normal(64, 512)
    ours = np.square(quantize(weight, format).dequantize() - weight).sum()
    theirs = np.square(quants.dequantize(quants.quantize(weight, kind), kind) - weight).sum()
    assert 0.98 * theirs < ours <= theirs * (1 + 1e-6)


def test_weights_on_a_grid_come_back_exactly() -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(-8, 8, (4, 96)).astype(np.float32)
    codes[:, ::32] = -8
    np.testing.assert_array_equal(quantize(codes / 64, GroupFormat(4, 32)).dequantize(), codes / 64)
    codes[:, 1::32] = 7
    np.testing.assert_array_equal(
        quantize(codes / 64, GroupFormat(4, 32, minimum=True)).dequantize(), codes / 64
    )
    table = normal_table()
    entries = table[rng.integers(0, 16, (4, 96))].astype(np.float32)
    entries[:, ::32] = 32
    tensor = quantize(entries / 128, GroupFormat(4, 32, table=True))
    np.testing.assert_array_equal(tensor.dequantize(), entries / 128)


def test_a_table_of_ones_own_in_any_order() -> None:
    rng = np.random.default_rng(3)
    table = rng.permutation(np.arange(-20, 12, 2, dtype=np.int8))
    weight = normal()
    tensor = quantize(weight, GroupFormat(4, 32, table=True), table)
    assert tensor.table is table
    assert tensor.problem() is None
    assert farther_than_nearest(tensor, weight) == 0
    # The largest entry is -20: the scale is chosen for it.
    np.testing.assert_allclose(tensor.scales[:, 0], np.abs(weight[:, :32]).max(axis=1) / 20, rtol=1e-3)


def test_normal_table() -> None:
    """Quantiles of the normal distribution, as bitsandbytes makes NF4, in integers."""
    from statistics import NormalDist

    offset = (1 - 1 / 30 + 1 - 1 / 32) / 2
    upper = [NormalDist().inv_cdf(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    lower = [-NormalDist().inv_cdf(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    expected = np.sort([*upper, 0.0, *lower])
    expected = expected / expected.max() * 32
    assert normal_table().tolist() == np.rint(expected if expected[0] == -32 else -expected[::-1]).tolist()
    assert normal_table()[[0, 7, 15]].tolist() == [-32, 0, 32]
    assert (np.diff(normal_table()) > 0).all()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_groups_of_zeros(format: GroupFormat) -> None:
    weight = normal()
    weight[:, : format.group_size] = 0
    weight[3] = 0
    weight[4] = -0.0
    values = quantize(weight, format).dequantize()
    np.testing.assert_array_equal(values[:, : format.group_size], 0)
    np.testing.assert_array_equal(values[3:], 0)
    assert not np.signbit(values[3:]).any()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_tiny_weights_are_rounded_to_what_float16_holds(format: GroupFormat) -> None:
    weight = normal() * np.float32(1e-7)
    tensor = quantize(weight, format)
    assert tensor.is_finite()
    assert np.abs(tensor.dequantize()).max() < 1e-5
    assert np.abs(quantize(weight * np.float32(1e-30), format).dequantize()).max() == 0


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(format: GroupFormat, value: float) -> None:
    weight = normal()
    weight[4, 207] = value
    with pytest.raises(ModelError, match=r"tensor lm_head.weight holds values that are not finite"):
        quantize(weight, format, name="lm_head.weight")


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_weights_too_large_for_float16(format: GroupFormat) -> None:
    weight = normal()
    weight[2, 64] = -3e38
    weight[2, 65] = 3e38
    with pytest.raises(ModelError, match=r"tensor lm_head.weight: a (scale|minimum) of .* at most 65504"):
        quantize(weight, format, name="lm_head.weight")


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_chunks_of_rows_change_nothing(format: GroupFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = normal(17)
    whole = quantize(weight, format)
    monkeypatch.setattr(group_tensor, "_CHUNK_WEIGHTS", 208 * 3)
    assert len(list(round_to_nearest.row_chunks(17, 208))) == 6
    chunked = quantize(weight, format)
    for field in ("codes", "scales", "minimums", "table", "positions"):
        np.testing.assert_array_equal(getattr(chunked, field), getattr(whole, field))


def test_blocks_of_a_mapped_file_are_left_alone() -> None:
    weight = normal()
    before = weight.copy()
    weight.setflags(write=False)
    for format in FORMATS:
        quantize(weight, format)
    np.testing.assert_array_equal(weight, before)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_whatever_the_weights(format: GroupFormat, values: list[float], seed: int) -> None:
    """Few different values, in any mixture: ties, zeros, constant groups, subnormals."""
    weight = np.random.default_rng(seed).choice(np.array(values, np.float32), (2, 48))
    tensor = quantize(weight, format)
    assert tensor.problem() is None
    assert tensor.is_finite()
    assert farther_than_nearest(tensor, weight) == 0
    if format.pattern != "dense":
        assert smaller_than_left_out(tensor, weight) == 0
