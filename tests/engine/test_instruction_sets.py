"""Every instruction set of the native engine gives the same bits."""

import numpy as np
import pytest
from bidtrie._native import instruction_sets
from engine.conformance import tokens_of, tree_of
from engine.subjects import native_subject
from engine.twin import Twin
from reference.tiny_models import CHECKPOINTS


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_same_bits(name: str) -> None:
    """Each twin compares bits with what the ones before it saw."""
    sets = instruction_sets()
    assert "portable" in sets
    seen: dict[tuple[int, ...], np.ndarray] = {}
    for instructions in sets:
        subject = native_subject(name, instruction_set=instructions)
        with Twin(subject, bits=True, seen=seen) as twin:
            assert twin.engine.instruction_set == instructions
            sequence = twin.open()
            twin.feed(sequence, tokens_of(80, 20))
            twin.step(tree_of(81, 40, sequence))
            twin.step(tree_of(82, 1, sequence))
    assert len(seen) > 40
