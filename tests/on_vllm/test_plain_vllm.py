"""Trees on vLLM's workers write what vLLM itself writes: greedily, eight texts at once, prefixes shared."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.engine.tree_batch import PREFIX_END, TreeBatch
from on_vllm.subjects import an_engine, folder
from on_vllm.wrong_views import Wrong, commit_forgotten, index_as_position, mask_off

#: Its heads have 32 numbers, the fewest that vLLM has attention for on a CPU.
MODEL = "qwen3"
SHARED, COUNT = 37, 24
#: Of eight prompts: tokens behind the shared ones.
TAILS = (1, 2, 3, 5, 8, 13, 21, 4)

Text = list[tuple[int, float]]


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 250, SHARED).tolist()
    return [[*shared, *rng.integers(0, 250, tail).tolist()] for tail in TAILS]


@cache
def by_vllm() -> list[Text]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("plain_vllm.py"), str(folder(MODEL)[0]), str(COUNT)],
        input=json.dumps(prompts()),
        env=os.environ
        | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts: list[Text] = [
        [(token, value) for token, value in text] for text in json.loads(done.stdout.splitlines()[-1])
    ]
    return texts


def by_trees(engine: Any, expected: list[Text]) -> tuple[list[Text], int]:
    """The texts, each step one batch with a tree of guesses for every text that is not done; and how many steps.

    Of each tree's guesses some are the text that is expected, so that paths of all lengths are taken.
    """
    rng = np.random.default_rng(1)
    starts = prompts()
    first = engine.open()
    engine.commit(first, engine.step(TreeBatch.chain(starts[0][:SHARED], first)).nodes.tolist())
    sequences = [engine.open(first, SHARED) for _ in starts]
    texts: list[Text] = [[] for _ in starts]
    ends = []
    for prompt, sequence in zip(starts, sequences, strict=True):
        tail = engine.step(TreeBatch.chain(prompt[SHARED:], sequence, last_logits=True))
        engine.commit(sequence, tail.nodes.tolist())
        ends.append(tail.row(0))
    steps = 0
    while open_texts := [i for i, text in enumerate(texts) if len(text) < COUNT]:
        tokens, owners, parents = [], [], []
        for i in open_texts:
            root = len(tokens)
            tokens.append(_take(texts[i], ends[i]))
            owners.append(sequences[i])
            parents.append(PREFIX_END)
            right = [token for token, _ in expected[i][len(texts[i]) :]][: int(rng.integers(0, 5))]
            above = root
            for depth in range(4):
                for guess in (
                    right[depth : depth + 1] or rng.integers(0, 250, 1).tolist(),
                    rng.integers(0, 250, 2),
                ):
                    for token in guess:
                        tokens.append(int(token))
                        owners.append(sequences[i])
                        parents.append(above)
                above = len(tokens) - 3
        out = engine.step(TreeBatch.of(tokens, owners, parents, range(len(tokens))))
        steps += 1
        for i in open_texts:
            node = next(n for n, owner in enumerate(owners) if owner == sequences[i])
            path = [node]
            while len(texts[i]) < COUNT:
                best = int(out.row(node).argmax())
                taken = [n for n, parent in enumerate(parents) if parent == node and tokens[n] == best]
                if not taken:
                    break
                _take(texts[i], out.row(node))
                node = taken[0]
                path.append(node)
            ends[i] = out.row(node)
            engine.commit(sequences[i], out.nodes[path].tolist())
    return texts, steps


def _take(text: Text, logits: Any) -> int:
    """The greedy token, added to the text with its log-probability."""
    wide = logits.astype(np.float64)
    token = int(wide.argmax())
    text.append((token, float(wide[token] - np.logaddexp.reduce(wide))))
    return token


def test_greedy_texts_and_their_probabilities() -> None:
    expected = by_vllm()
    with an_engine(MODEL, slots=1024) as engine:
        texts, steps = by_trees(engine, expected)
        assert engine.free_slots() < 1024
    assert [[token for token, _ in text] for text in texts] == [
        [token for token, _ in text] for text in expected
    ]
    np.testing.assert_allclose(
        [[value for _, value in text] for text in texts],
        [[value for _, value in text] for text in expected],
        rtol=0,
        atol=1e-4,
    )
    # Guesses were taken, several in a row.
    assert steps < 0.6 * COUNT


@pytest.mark.parametrize("change", [mask_off, index_as_position, commit_forgotten])
def test_a_wrong_view_writes_something_else(change: Callable[[list[Any]], list[Any]]) -> None:
    expected = by_vllm()
    with an_engine(MODEL, slots=1024) as engine:
        engine._tree = Wrong(engine._tree, change)
        texts, _ = by_trees(engine, expected)
    assert [[token for token, _ in text] for text in texts] != [
        [token for token, _ in text] for text in expected
    ]
