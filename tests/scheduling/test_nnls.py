"""Non-negative least squares against the conditions that only its solution meets."""

import numpy as np
import pytest
from bidtrie.scheduling.nnls import nnls


def meets_conditions(gram: np.ndarray, moment: np.ndarray, x: np.ndarray) -> bool:
    """Karush, Kuhn and Tucker: not negative, no slope where it is positive, none upwards where it is 0."""
    scale = np.sqrt(np.maximum(np.diagonal(gram), 1e-300))
    slope = (moment - gram @ x) / scale
    size = np.abs(moment / scale).max() + 1e-300
    return bool((x >= 0).all() and (np.abs(slope[x > 0]) < 1e-6 * size).all() and (slope < 1e-6 * size).all())


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_minimum(seed):
    rng = np.random.default_rng(seed)
    rows, size = int(rng.integers(5, 80)), int(rng.integers(1, 14))
    a = rng.random((rows, size)) * 10.0 ** rng.integers(-4, 4, size)
    b = a @ np.maximum(rng.normal(0, 1, size), 0) + rng.normal(0, 0.5, rows)
    gram, moment = a.T @ a, a.T @ b
    x = nnls(gram, moment)
    assert meets_conditions(gram, moment, x)
    changed = np.maximum(x * rng.uniform(0.5, 1.5, size), 0) + 1e-3
    assert not meets_conditions(gram, moment, changed), "the negative control"


def test_exact_data_gives_the_coefficients_back():
    rng = np.random.default_rng(3)
    a = rng.random((60, 12))
    truth = np.maximum(rng.normal(0, 1, 12), 0)
    assert nnls(a.T @ a, a.T @ (a @ truth)) == pytest.approx(truth, abs=1e-6)


def test_features_that_are_never_seen_or_always_together_do_no_harm():
    a = np.random.default_rng(4).random((30, 4))
    a[:, 2] = 0
    a[:, 3] = 2 * a[:, 1]
    b = a[:, 0] + 3 * a[:, 1]
    x = nnls(a.T @ a, a.T @ b)
    assert x[2] == 0
    assert (x >= 0).all()
    assert a @ x == pytest.approx(b, abs=1e-6)
    assert nnls(np.zeros((3, 3)), np.zeros(3)).tolist() == [0, 0, 0]
