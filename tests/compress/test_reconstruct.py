"""Refitted scales against least squares over the inputs themselves, row by row."""

import numpy as np
import pytest
from bidtrie.compress import reconstruct
from bidtrie.compress.codes import code_units
from bidtrie.compress.reconstruct import refit_scales, row_losses
from bidtrie.compress.scales import Scales, fit_scales
from bidtrie.compress.sparsity import likely_mask
from bidtrie.models.group_tensor import GroupFormat
from reference.group_tensors import FORMATS

ROWS, COLS = 6, 48


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_refitted(format: GroupFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "_CHUNK_NUMBERS", 2 * COLS)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((300, COLS)) @ rng.standard_normal((COLS, COLS))
    weight = rng.standard_normal((ROWS, COLS))
    table = rng.permutation(np.arange(-32, 33, dtype=np.int8))[:16] if format.table else None
    kept = None if format.pattern == "dense" else likely_mask(weight, np.ones(COLS), format.pattern)
    codes = rng.integers(0, 2**format.bits, (ROWS, COLS), dtype=np.uint8)
    old = fit_scales(weight, np.ones(COLS), format, table, kept)
    new = refit_scales(weight, inputs.T @ inputs / 300, codes, kept, format, old)
    units = code_units(format, table)[codes] * (1 if kept is None else kept)
    for row in range(ROWS):
        columns = []
        for group in range(format.groups(COLS)):
            inside = np.arange(COLS) // format.group_size == group
            columns.append(inputs @ (units[row] * inside))
        if format.minimum:
            for group in range(format.groups(COLS)):
                columns.append(inputs @ (np.arange(COLS) // format.group_size == group).astype(float))
        best, *_ = np.linalg.lstsq(np.array(columns).T, inputs @ weight[row], rcond=None)
        found = (
            new.scales[row] if new.minimums is None else np.concatenate([new.scales[row], new.minimums[row]])
        )
        np.testing.assert_allclose(found, best, rtol=2e-3, atol=2e-3 * np.abs(best).max())


def test_rows_that_rounding_makes_worse_keep_their_numbers() -> None:
    """Scales at float16's end cannot become what they should."""
    format = GroupFormat(4, 16)
    weight = np.full((1, 16), 3e-8)
    codes = np.full((1, 16), 9, np.uint8)
    old = Scales(np.array([[6e-8]], np.float16))
    assert refit_scales(weight, np.eye(16), codes, None, format, old).scales == old.scales


def test_groups_of_zeros_keep_their_numbers() -> None:
    format = GroupFormat(4, 16)
    codes = np.full((2, 32), 8, np.uint8)
    old = Scales(np.array([[0.5, 0.25], [1, 2]], np.float16))
    new = refit_scales(np.ones((2, 32)), np.eye(32), codes, None, format, old)
    np.testing.assert_array_equal(new.scales, old.scales)


def test_row_losses() -> None:
    rng = np.random.default_rng(1)
    error, h = rng.standard_normal((3, 8)), np.cov(rng.standard_normal((8, 20)))
    np.testing.assert_allclose(row_losses(error, h), [e @ h @ e for e in error])
