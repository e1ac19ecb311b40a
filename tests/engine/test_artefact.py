"""An artefact on disk, through the engine: written, read back, packed and computed."""

from pathlib import Path

import numpy as np
import pytest
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat
from bidtrie.models.load import load_checkpoint
from models.tiny_artefacts import write_tiny_artefact
from reference.llama import ReferenceLlama
from reference.rounding import round_to_half, round_to_int8
from reference.tiny_models import save_tiny_model

TOKENS = (5, 17, 40, 200, 3, 99)


def logits_of(checkpoint: Checkpoint, **options: str) -> np.ndarray:
    engine = NativeEngine(checkpoint, threads=1, slots=16, max_nodes=16, **options)
    count = len(TOKENS)
    output = engine.step(TreeBatch.of(TOKENS, engine.open(), range(-1, count - 1), range(count)))
    engine.shutdown()
    return output.logits.reshape(count, -1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("qwen3")
    save_tiny_model("qwen3", folder)
    return load_checkpoint(folder)


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        (GroupFormat(4, 32), GroupFormat(4, 32)),
        (GroupFormat(4, 64, minimum=True), GroupFormat(8, 32)),
        (GroupFormat(4, 16, table=True), GroupFormat(4, 32, minimum=True)),
        (GroupFormat(4, 32, pattern="2:4"), GroupFormat(8, 16)),
        (GroupFormat(4, 32, table=True, pattern="1:4"), GroupFormat(4, 64)),
        (GroupFormat(8, 96), GroupFormat(8, 96)),
    ],
    ids=str,
)
def test_an_artefact_is_computed_as_it_says(
    source: Checkpoint, tmp_path: Path, layers: GroupFormat, head: GroupFormat
) -> None:
    write_tiny_artefact(tmp_path / "out", source, layers, head)
    artefact = load_checkpoint(tmp_path / "out")
    # Dequantized, nothing is rounded; as served, activations are, and keys and values.
    exact = ReferenceLlama(artefact)
    np.testing.assert_allclose(logits_of(artefact, weights="float32"), exact.logits(TOKENS), atol=5e-5)
    served, rounded = logits_of(artefact), exact.rounding(round_to_int8, round_to_half).logits(TOKENS)
    spread = rounded.std()
    assert np.sqrt(np.square(served - rounded).mean()) < 0.05 * spread
    # A negative control: the model before it was compressed is farther away.
    before = ReferenceLlama(source).logits(TOKENS)
    if layers.bits == 4:
        assert np.sqrt(np.square(served - before).mean()) > 0.05 * spread
