"""The first idea of step times."""

import pytest
from bidtrie.scheduling.calibration import SIZES, calibrate
from bidtrie.scheduling.scheduler import Level
from bidtrie.scheduling.step_shape import StepShape
from scheduling.simulation import SimulatedEngine, World, step_seconds


def test_it_finds_what_steps_take_and_leaves_nothing_behind():
    world = World()
    engine = SimulatedEngine(world, max_nodes=128)
    level = Level(engine)
    prefix = engine.open()
    calibrate(level, prefix, token=1, clock=lambda: world.now)
    assert engine.open_sequences == {prefix}
    for nodes in (1, 3, 16, 50, 128):
        assert level.model.mean(StepShape(nodes, 0, 0, 0, 1)) == pytest.approx(step_seconds(nodes), rel=0.05)


def test_it_does_not_wait_for_a_slow_engine():
    world = World()
    engine = SimulatedEngine(world, max_nodes=512, seconds=lambda nodes: 0.02 * nodes)
    calibrate(Level(engine), engine.open(), token=1, clock=lambda: world.now)
    assert world.now < 2
    assert max(len(sequences) for _, _, sequences in engine.steps) == 1
    assert SIZES[0] == 1
