"""Step times learned from steps: against the formula that made them, with noise, drift and jumps."""

import itertools
import json

import numpy as np
import pytest
from bidtrie.scheduling.cost_model import FEATURES, QUANTILE, CostModel
from bidtrie.scheduling.cost_store import load_cost_model, save_cost_model
from bidtrie.scheduling.step_shape import StepShape

RNG = np.random.default_rng(5)


def truth(shape: StepShape) -> float:
    """Bound by memory up to 4 nodes, then by arithmetic; more for context, rows, candidates and jobs."""
    nodes = shape.nodes
    seconds = 1.6e-3 + 1e-5 * nodes + 2.3e-4 * max(0, nodes - 4)
    rows = 3e-4 * (shape.full_rows > 0) + 3e-5 * shape.full_rows
    return seconds + 2e-6 * shape.context / 10 + rows + 1e-6 * shape.cells + 8e-4 * shape.jobs


def shapes(count: int) -> list[StepShape]:
    drawn = []
    for _ in range(count):
        nodes = int(RNG.integers(1, 100))
        jobs = int(RNG.integers(1, 6))
        drawn.append(
            StepShape(
                nodes,
                nodes * int(RNG.integers(5, 200)),
                int(RNG.integers(0, 8)),
                int(RNG.integers(0, 200)),
                jobs,
            )
        )
    return drawn


def taught(steps: int = 1500, noise: float = 0.0) -> CostModel:
    model = CostModel()
    for shape in shapes(steps):
        model.learn(shape, truth(shape) * float(np.exp(RNG.normal(0, noise))))
    return model


def errors(model: CostModel) -> np.ndarray:
    return np.array([model.mean(shape) / truth(shape) for shape in shapes(300)])


def test_it_learns_a_formula_of_its_kind():
    found = np.abs(errors(taught()) - 1)
    assert np.quantile(found, 0.9) < 0.02
    assert found.max() < 0.15


def test_without_steps_it_does_not_know_it():
    """The negative control."""
    assert np.abs(errors(CostModel()) - 1).max() > 0.3


def test_the_margin_is_the_quantile_of_the_error():
    model = taught(noise=0.2)
    inside = [truth(shape) * float(np.exp(RNG.normal(0, 0.2))) <= model.safe(shape) for shape in shapes(4000)]
    # The speed follows the noise too, which the margin covers as well.
    assert QUANTILE - 0.03 <= np.mean(inside) <= 0.995
    inside = [truth(shape) * float(np.exp(RNG.normal(0, 0.2))) <= model.mean(shape) for shape in shapes(1000)]
    assert np.mean(inside) < 0.7, "the negative control: without the margin"
    assert taught().margin < 1.1


def test_a_slower_machine_is_followed_within_tens_of_steps():
    model = taught()
    for shape in shapes(50):
        model.learn(shape, 2 * truth(shape))
    assert np.median(errors(model)) == pytest.approx(2, rel=0.1)


def test_one_step_that_was_held_up_changes_little():
    model = taught()
    model.learn(StepShape(20, 1000, 1, 10, 2), 10.0)
    assert np.median(errors(model)) < 1.2


def test_sizes_not_seen_for_long_are_not_forgotten():
    model = CostModel()
    for nodes in (1, 2, 4, 8, 16, 32, 64, 128):
        for _ in range(5):
            model.learn(StepShape(nodes, 0, 0, 0, 1), truth(StepShape(nodes, 0, 0, 0, 1)), calibration=True)
    for _ in range(5000):
        model.learn(StepShape(1, 0, 0, 0, 1), truth(StepShape(1, 0, 0, 0, 1)))
    large = StepShape(128, 0, 0, 0, 1)
    assert model.mean(large) == pytest.approx(truth(large), rel=0.2)


def test_what_always_comes_together_is_told_apart_by_the_calibration():
    """Requests of one kind have as much context as nodes: without the calibration either may pass for the cause."""
    anchored, loose = CostModel(), CostModel()
    for nodes in (1, 2, 4, 8, 16, 32, 64, 128):
        for context, cells in ((10, 0), (200, 0), (10, 64)):
            shape = StepShape(nodes, nodes * context, 0, nodes * cells, 1)
            anchored.learn(shape, truth(shape), calibration=True)
    for _ in range(2000):
        nodes = int(RNG.integers(1, 60))
        shape = StepShape(nodes, 60 * nodes, 0, 5 * nodes, 1)
        for model in (anchored, loose):
            model.learn(shape, 3 * truth(shape))
    other = [StepShape(nodes, nodes * context, 0, 0, 1) for nodes in (1, 16, 50) for context in (0, 250)]

    def worst(model: CostModel) -> float:
        return max(abs(model.mean(shape) / (3 * truth(shape)) - 1) for shape in other)

    assert worst(anchored) < 0.03
    assert worst(loose) > 0.06, "the negative control"


def test_a_slow_and_noisy_time_does_not_bend_what_was_calibrated():
    """Noise is skewed: the level of it must go into the speed, and leave the shape of the costs alone."""
    model = CostModel()
    sizes = (1, 2, 4, 6, 8, 12, 16, 32, 64, 128)
    for nodes in sizes:
        for context, cells in ((10, 0), (200, 0), (10, 64)):
            shape = StepShape(nodes, nodes * context, 0, nodes * cells, 0)
            model.learn(shape, truth(shape), calibration=True)
    rng = np.random.default_rng(2)
    for _ in range(6000):
        nodes = int(rng.integers(15, 25))
        shape = StepShape(nodes, 35 * nodes, 0, 2 * nodes, 1)
        model.learn(shape, 3 * truth(shape) * float(np.exp(rng.normal(0, 0.5))))
    ratios = [
        model.mean(StepShape(nodes, 10 * nodes, 0, 0, 0)) / truth(StepShape(nodes, 10 * nodes, 0, 0, 0))
        for nodes in sizes
    ]
    assert max(ratios) / min(ratios) < 1.6
    assert 2 < model.speed < 6


def test_costs_never_fall_with_size():
    model = CostModel()
    for shape in shapes(400):
        model.learn(shape, float(RNG.uniform(1e-3, 3e-2)))  # no sense in it
    costs = [model.mean(StepShape(nodes, 0, 0, 0, 1)) for nodes in range(1, 300)]
    assert all(a <= b for a, b in itertools.pairwise(costs))
    assert model.marginal(StepShape(1, 0, 0, 0, 1)) >= 0


def test_a_saved_model_is_the_same_and_learns_on(tmp_path):
    model = taught(noise=0.1)
    file = tmp_path / "deep" / "costs.json"
    assert save_cost_model(file, model)
    again = load_cost_model(file)
    assert again is not None
    for shape in shapes(50):
        assert again.mean(shape) == pytest.approx(model.mean(shape), rel=1e-9)
    for shape in shapes(400):
        again.learn(shape, 3 * truth(shape))
    assert np.median(errors(again)) == pytest.approx(3, rel=0.1)
    assert [path.name for path in file.parent.iterdir()] == ["costs.json"]


def test_a_file_that_was_saved_many_times_still_learns(tmp_path):
    file = tmp_path / "costs.json"
    model = taught()
    for _ in range(20):
        save_cost_model(file, model)
        model = load_cost_model(file)
        for shape in shapes(200):
            model.learn(shape, truth(shape))
    gram = np.array(json.loads(file.read_text())["gram"])
    assert gram[0, 0] < 1e12, "what was learned does not pile up"
    assert np.abs(errors(model) - 1).max() < 0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.clear(),
        lambda s: s.update(knots=[1]),
        lambda s: s.update(coefficients=[0.0] * FEATURES),
        lambda s: s.update(coefficients=[-1.0] * FEATURES),
        lambda s: s.update(coefficients=s["coefficients"][1:]),
        lambda s: s.update(gram="x"),
        lambda s: s.update(gram=[[float("nan")] * FEATURES] * FEATURES),
        lambda s: s.update(speed=float("inf")),
        lambda s: s.update(speed=0.0),
        lambda s: s.update(margin=0.5),
        lambda s: s.update(samples="many"),
        lambda s: s.update(samples=-1),
        lambda s: s.update(moment=[1e999] * FEATURES),
    ],
)
def test_a_damaged_state_is_refused_whole(tmp_path, change, caplog):
    file = tmp_path / "costs.json"
    save_cost_model(file, taught(50))
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))
    assert load_cost_model(file) is None
    assert "cost model not read" in caplog.text
    model = CostModel()
    before = model.state()
    with pytest.raises(ValueError, match=r"."):
        model.restore(state)
    assert model.state() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2_000_000])
def test_junk_in_the_file_is_no_model(tmp_path, content, caplog):
    file = tmp_path / "costs.json"
    file.write_bytes(content)
    assert load_cost_model(file) is None
    assert "cost model not read" in caplog.text


def test_a_margin_of_a_bad_moment_does_not_spoil_the_file(tmp_path):
    model = taught(50)
    model.margin = 1e4
    assert save_cost_model(tmp_path / "costs.json", model)
    again = load_cost_model(tmp_path / "costs.json")
    assert again is not None
    assert again.margin == 100


def test_no_file_is_nothing_to_tell(tmp_path, caplog):
    assert load_cost_model(tmp_path / "none.json") is None
    assert not caplog.records


def test_a_full_disk_keeps_the_old_file_and_serves_on(tmp_path, monkeypatch, caplog):
    file = tmp_path / "costs.json"
    assert save_cost_model(file, taught(50))
    before = file.read_bytes()

    def full(self, text, **_):
        with self.open("w") as opened:
            opened.write(text[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full)
        assert not save_cost_model(file, taught(50))
    assert "not saved" in caplog.text
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["costs.json"]
    assert save_cost_model(file, taught(50))
