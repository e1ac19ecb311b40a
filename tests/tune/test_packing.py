"""Packs: many examples in one sequence give what each gives alone."""

import numpy as np
import pytest
import torch
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.tune.example import Choice, Example
from bidtrie.tune.packing import Pack, grouped, pack
from bidtrie.tune.torch_model import torch_model
from reference.transformers_logits import path_logits

PREFIX = [72, 101, 121]
EXAMPLES = [
    Example((80, 81, 82, 83), 1, (82, 83, 10), (Choice(1, np.array([5, 82]), 1),)),
    Example((90,), 0, (7,), (Choice(0, np.array([7, 8, 9]), 0),)),
    Example((60, 61, 62, 63, 64, 65), 2, (63, 64, 65, 66)),
]


def logits(model, packed: Pack) -> np.ndarray:
    mask = torch.zeros(packed.visible.shape).masked_fill(~torch.from_numpy(packed.visible), -1e30)
    with torch.inference_mode():
        output = model(
            input_ids=torch.from_numpy(packed.tokens)[None],
            position_ids=torch.from_numpy(packed.positions)[None],
            attention_mask=mask[None, None],
            use_cache=False,
        )
    return output.logits[0].numpy()


def largest_difference(model, packed: Pack) -> float:
    found, begin, worst = logits(model, packed), len(PREFIX), 0.0
    for example in EXAMPLES:
        alone = path_logits(model, [*PREFIX, *example.tokens])[len(PREFIX) :]
        worst = max(worst, float(np.abs(found[begin : begin + len(example.tokens)] - alone).max()))
        begin += len(example.tokens)
    return worst


def test_a_pack_gives_what_each_example_gives_alone(tiny: Checkpoint) -> None:
    model, packed = torch_model(tiny), pack(PREFIX, EXAMPLES)
    assert largest_difference(model, packed) < 1e-4
    # The control: examples that see each other differ.
    visible = np.tri(len(packed.tokens), dtype=bool)
    careless = Pack(
        packed.tokens, packed.positions, visible, packed.choices, packed.word_rows, packed.words, 3
    )
    assert largest_difference(model, careless) > 0.1


def test_rows_are_counted_in_the_sequence() -> None:
    packed = pack(PREFIX, EXAMPLES)
    assert [choice.row for choice in packed.choices] == [3 + 1, 7]
    assert packed.word_rows.tolist() == [4, 5, 6, 7, 10, 11, 12, 13]
    assert packed.words.tolist() == [82, 83, 10, 7, 63, 64, 65, 66]
    # A word's row is the token before it: the answer's tokens follow each other.
    assert packed.tokens[packed.word_rows[1]] == packed.words[0]
    assert packed.examples == 3


@pytest.mark.parametrize("room", [1, 5, 6, 7, 100])
def test_groups_fit_and_lose_nothing(room: int) -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6]
    order = [5, 0, 7, 1, 3, 2, 6, 4]
    groups = list(grouped(lengths, order, room))
    assert [i for group in groups for i in group] == order
    for group in groups:
        assert sum(lengths[i] for i in group) <= room or len(group) == 1
