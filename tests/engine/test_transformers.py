"""The native engine's logits against transformers' float32 ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import PREFIX_END, TreeBatch, kept_parent
from bidtrie.models.load import load_checkpoint
from reference.gguf_llama import gguf_model
from reference.tiny_models import KINDS, save_tiny_model
from reference.transformers_logits import last_logits, path_logits, tree_logits

#: Largest absolute difference of a logit. Logits spread over 1.2 units in the tiny models, over 6 in SmolLM2.
LIMIT = 2e-3

TEXTS = (
    "Page title: How to bake sourdough bread at home\nTopic category:",
    "The capital of France is Paris, and the capital of Germany is",
    "Best 4K TVs of 2024: our picks for gaming and movies, from $300 to $2,000",
)


@dataclass
class Case:
    """One model in both implementations, and prompts of different lengths."""

    engine: NativeEngine
    model: Any
    prompts: list[list[int]]
    vocabulary: int


@pytest.fixture(scope="module", params=[*KINDS, "smollm2"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    if request.param == "smollm2":
        path: Path = request.getfixturevalue("smollm2_path")
        model = gguf_model(path)
    else:
        path = tmp_path_factory.mktemp(request.param)
        model = save_tiny_model(request.param, path, seed=len(request.param))
    checkpoint = load_checkpoint(path)
    engine = NativeEngine(checkpoint, threads=1, slots=1024, max_nodes=128, weights="float32")
    prompts = [checkpoint.tokenizer.encode(text) for text in TEXTS]
    yield Case(engine, model, prompts, checkpoint.config.vocab_size)
    engine.shutdown()


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert expected.std() > 0.5, "logits too flat to tell a mistake"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=LIMIT)


def prefilled(engine: NativeEngine, tokens: Sequence[int]) -> int:
    sequence = engine.open()
    engine.commit(sequence, engine.step(TreeBatch.chain(tokens, sequence)).nodes.tolist())
    return sequence


def random_tree(rng: np.random.Generator, count: int, vocabulary: int) -> tuple[list[int], list[int]]:
    """Tokens and parents; several roots, and siblings at every depth."""
    parent = [int(rng.integers(max(-1, i - 5), i)) for i in range(count)]
    return rng.integers(0, vocabulary, count).tolist(), parent


def test_prompts(case: Case) -> None:
    for prompt in case.prompts:
        sequence = case.engine.open()
        batch = TreeBatch.of(prompt, sequence, range(-1, len(prompt) - 1), range(len(prompt)), logsumexp=True)
        output = case.engine.step(batch)
        expected = path_logits(case.model, prompt)
        assert_close(output.logits.reshape(len(prompt), -1), expected)
        largest = expected.max(axis=1, keepdims=True).astype(np.float64)
        logsumexp = np.log(np.exp(expected - largest).sum(axis=1)) + largest[:, 0]
        np.testing.assert_allclose(output.logsumexp, logsumexp, rtol=0, atol=LIMIT)
        case.engine.close(sequence)


def test_chunked_prompt_and_decoding(case: Case) -> None:
    prompt = case.prompts[2]
    expected = path_logits(case.model, prompt)
    sequence, at = case.engine.open(), 0
    for size in (5, 1, 4, 1, 1, len(prompt) - 12):
        chunk = TreeBatch.chain(prompt[at : at + size], sequence, last_logits=True)
        output = case.engine.step(chunk)
        case.engine.commit(sequence, output.nodes.tolist())
        at += size
        assert_close(output.row(0), expected[at - 1])
    case.engine.close(sequence)


def test_tree_on_a_prefix(case: Case) -> None:
    rng = np.random.default_rng(1)
    for prompt in ([], case.prompts[0]):
        tokens, parent = random_tree(rng, 24, case.vocabulary)
        sequence = prefilled(case.engine, prompt) if prompt else case.engine.open()
        output = case.engine.step(TreeBatch.of(tokens, sequence, parent, range(24)))
        assert_close(output.logits.reshape(24, -1), tree_logits(case.model, prompt, tokens, parent))
        case.engine.close(sequence)


def test_trees_of_several_sequences(case: Case) -> None:
    """Interleaved in one batch, on prefixes of different lengths, one of which is shared in part."""
    rng = np.random.default_rng(2)
    prefixes = [*case.prompts, case.prompts[0][:6]]
    sequences = [prefilled(case.engine, prefix) for prefix in prefixes[:3]]
    sequences.append(case.engine.open(sequences[0], 6))
    trees = [random_tree(rng, 12, case.vocabulary) for _ in prefixes]
    count = len(prefixes)
    tokens = [trees[i % count][0][i // count] for i in range(12 * count)]
    parent = [trees[i % count][1][i // count] for i in range(12 * count)]
    parent = [above * count + i % count if above >= 0 else PREFIX_END for i, above in enumerate(parent)]
    owners = [sequences[i % count] for i in range(12 * count)]
    output = case.engine.step(TreeBatch.of(tokens, owners, parent, range(12 * count)))
    rows = output.logits.reshape(12, count, -1)
    for s, prefix in enumerate(prefixes):
        assert_close(rows[:, s], tree_logits(case.model, prefix, *trees[s]))
    for sequence in sequences:
        case.engine.close(sequence)


@dataclass
class Growing:
    """A tree that grows over several steps in one sequence: what transformers is given whole, at the end."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def path(self, node: int) -> list[int]:
        path = [node]
        while self.parent[path[0]] >= 0:
            path.insert(0, self.parent[path[0]])
        return path


def test_kept_nodes_over_several_steps(case: Case) -> None:
    """A beam of three over five steps, in two sequences at once; then a path is committed and goes on."""
    rng = np.random.default_rng(3)
    engine = case.engine
    prefixes = case.prompts[:2]
    trees = [Growing(prefilled(engine, prefix)) for prefix in prefixes]
    beams: list[list[int]] = [[-1], [-1]]
    for _ in range(5):
        batch: list[tuple[Growing, int]] = []
        for tree, beam in zip(trees, beams, strict=True):
            for above in beam:
                for token in rng.integers(0, case.vocabulary, 3).tolist():
                    batch.append((tree, len(tree.tokens)))
                    tree.tokens.append(token)
                    tree.parent.append(above)
        output = engine.step(
            TreeBatch.of(
                [tree.tokens[node] for tree, node in batch],
                [tree.sequence for tree, _ in batch],
                [
                    kept_parent(tree.handles[tree.parent[node]]) if tree.parent[node] >= 0 else PREFIX_END
                    for tree, node in batch
                ],
                range(len(batch)),
            )
        )
        for r, (tree, _) in enumerate(batch):
            tree.rows.append(output.row(r))
            tree.handles.append(int(output.nodes[r]))
        beams = [rng.permutation([node for t, node in batch if t is tree])[:3].tolist() for tree in trees]
        engine.keep([tree.handles[node] for tree, beam in zip(trees, beams, strict=True) for node in beam])
    for tree, beam, prefix in zip(trees, beams, prefixes, strict=True):
        path = tree.path(beam[1])
        engine.commit(tree.sequence, [tree.handles[node] for node in path])
        output = engine.step(TreeBatch.chain([7], tree.sequence, last_logits=True))
        tokens, parent = [*tree.tokens, 7], [*tree.parent, beam[1]]
        assert_close(np.stack([*tree.rows, output.row(0)]), tree_logits(case.model, prefix, tokens, parent))
        engine.close(tree.sequence)


def test_a_mask_and_single_paths_agree_in_transformers(case: Case) -> None:
    """What the trees are compared with is itself right: each leaf's path in a row of its own."""
    tokens, parent = [5, 6, 7, 8, 9, 10], [-1, -1, 0, 1, 0, 1]
    masked = tree_logits(case.model, case.prompts[1], tokens, parent)
    alone = last_logits(case.model, [[*case.prompts[1], tokens[parent[i]], tokens[i]] for i in range(2, 6)])
    np.testing.assert_allclose(masked[2:], alone, rtol=0, atol=LIMIT / 4)


def test_a_causal_mask_is_told_from_a_tree(case: Case) -> None:
    """Negative control: with the mask off, and with positions by index, logits differ by far more than the limit."""
    tokens, parent = random_tree(np.random.default_rng(5), 12, case.vocabulary)
    tree = tree_logits(case.model, case.prompts[0], tokens, parent)
    chain = path_logits(case.model, case.prompts[0] + tokens)[len(case.prompts[0]) :]
    assert np.abs(tree - chain).max() > 50 * LIMIT
