"""Learned tables against every table that there is, and against the fixed one."""

import itertools

import numpy as np
import pytest
from bidtrie.compress import tables
from bidtrie.compress.gptq import proxy_loss, solve_linear
from bidtrie.compress.scales import fit_scales
from bidtrie.compress.tables import best_entries, learn_table, normal_table
from bidtrie.models.group_tensor import GroupFormat


def test_entries_are_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values near 18 integers: 16 of 18 can be tried, and nothing else can be better."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        centres = np.sort(rng.choice(np.arange(-32, 33), 18, replace=False))
        values = centres.astype(np.float64)
        counts = rng.uniform(0.1, 10, 18)

        def cost(table: np.ndarray, values: np.ndarray = values, counts: np.ndarray = counts) -> float:
            return float((counts * np.square(values[:, None] - table).min(axis=1)).sum())

        found = best_entries(values, counts)
        # An entry may lie between two values, too: every integer that is near one.
        least = min(cost(np.array(each)) for each in itertools.combinations(centres, 16))
        assert cost(found.astype(np.float64)) <= least + 1e-9
        assert (np.diff(found) > 0).all()
        # A local optimum: no entry can be moved for the better.
        for i, step in itertools.product(range(16), (-1, 1)):
            moved = found.astype(np.float64)
            moved[i] += step
            assert cost(moved) >= cost(found.astype(np.float64)) - 1e-9


def test_values_beyond_the_limit_count_at_it() -> None:
    table = best_entries(np.array([-100.0, 100.0, 0.0]), np.ones(3))
    assert {-32, 0, 32} <= set(table.tolist())


def test_learned_for_the_weights_and_what_counts() -> None:
    """Less weighted error than the fixed table, on weights that are not normal; and importance matters."""
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal((64, 128)) ** 3).astype(np.float32)
    importance = np.exp(2 * rng.standard_normal(128))
    format = GroupFormat(4, 64, table=True)

    def error(table: np.ndarray, counts: np.ndarray) -> float:
        numbers = fit_scales(weight, counts, format, table)
        scale, _ = numbers.columns(format, 128)
        values = scale[..., None] * table.astype(np.float32)
        nearest = np.square(values - weight[..., None]).min(axis=2)
        return float((nearest * counts).sum())

    learned = learn_table(weight, importance, format)
    assert error(learned, importance) < 0.8 * error(normal_table(), importance)
    assert not np.array_equal(learned, learn_table(weight, np.ones(128), format))


def test_in_the_solver() -> None:
    rng = np.random.default_rng(2)
    weight = rng.laplace(size=(48, 128)).astype(np.float32)
    inputs = rng.standard_normal((500, 128)) @ rng.standard_normal((128, 128)) / 11
    hessian = inputs.T @ inputs / 500
    uniform = proxy_loss(weight, solve_linear(weight, hessian, GroupFormat(4, 64)), hessian)
    tensor = solve_linear(weight, hessian, GroupFormat(4, 64, table=True))
    assert tensor.table is not None
    assert not np.array_equal(tensor.table, normal_table())
    assert proxy_loss(weight, tensor, hessian) < 0.9 * uniform


def test_a_tall_weight_is_learned_from_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_ROWS", 8)
    weight = np.tile(np.random.default_rng(3).standard_normal((1, 64)), (32, 1)).astype(np.float32)
    format = GroupFormat(4, 32, table=True)
    np.testing.assert_array_equal(
        learn_table(weight, np.ones(64), format), learn_table(weight[::4], np.ones(64), format)
    )
