"""A model over two workers that are processes of their own, as over two GPUs; here both compute on the CPU."""

import os
import signal
from typing import Any

import numpy as np
import pytest
from bidtrie.engine.tree_batch import Candidates, TreeBatch
from bidtrie.engine.vllm.engine import VllmEngine
from bidtrie.engine.vllm.workers import Workers
from bidtrie.errors import EngineLost, ModelError
from on_vllm.subjects import folder
from reference.reference_engine import ReferenceEngine


def _logits(engine: Any) -> Any:
    rng = np.random.default_rng(0)
    sequence = engine.open()
    prompt = engine.step(TreeBatch.chain(rng.integers(0, 250, 30).tolist(), sequence))
    engine.commit(sequence, prompt.nodes.tolist())
    parents = [int(rng.integers(-1, i)) for i in range(24)]
    wanted = Candidates.of([[1, 2, 3], [], [299]] * 8)
    return engine.step(TreeBatch.of(rng.integers(0, 250, 24).tolist(), sequence, parents, range(24), wanted))


def test_two_workers_and_the_death_of_one() -> None:
    """An artefact cut in two, dequantized, so that the reference is met closely; then a worker is killed."""
    path, checkpoint = folder("groups-halved")
    workers = Workers(path, checkpoint, max_nodes=64, threads=1, tensor_parallel=2, dequantize=True)
    engine = VllmEngine(checkpoint, workers, slots=256, max_nodes=64, weights="float32")
    try:
        expected = _logits(ReferenceEngine(checkpoint, slots=256, max_nodes=64))
        np.testing.assert_allclose(_logits(engine).logits, expected.logits, rtol=0, atol=5e-5)
        assert not engine.lost
        os.kill(workers._executor.workers[1].proc.pid, signal.SIGKILL)
        with pytest.raises(EngineLost):
            _logits(engine)
        with pytest.raises(EngineLost):
            engine.open()
        assert engine.lost
    finally:
        engine.shutdown()


def test_an_artefact_that_cannot_be_cut_is_named_before_anything_starts() -> None:
    path, checkpoint = folder("groups")
    with pytest.raises(ModelError, match=r"down_proj.weight: 96 columns over 2 GPUs.*groups of 96"):
        Workers(path, checkpoint, max_nodes=64, threads=1, tensor_parallel=2)
