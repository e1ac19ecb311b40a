"""The 4-bit path on SmolLM2's Q4_1 file: what is imported, and what rounding activations to 8 bits costs.

The engine multiplies the file's own 4-bit codes with activations rounded, in blocks of 32, to signed 8-bit codes
of scale = largest magnitude / 127, and keeps keys and values as float16; all else is float32. So its logits differ
from the dequantized model's by that rounding alone, of which float16 is the far smaller part. How far is shown in
three parts.

1. Weights enter exactly: unpacked, they are the bits of gguf's dequantization.

2. The arithmetic is that rounding and nothing else: `ReferenceLlama` does the same in float64. The inputs of a
   linear in float32 and in float64 differ by about 1e-6 of their size, and a step of the rounding is 1/127 of a
   group's largest value, so about one value in 1e4 gets another code. Where none does, logits agree to float
   accuracy (5e-6 measured): with one layer, which rounds 3,840 values a token, and short chains, a fifth to nine tenths
   of the rows. A tenth of them must agree to 1e-4. Where one code does flip, the row is off by about what rounding
   costs: one code of n moves a linear's output by sqrt(12 / n) of what all n roundings do together, an error of e
   steps at the next linear flips a fraction e of its codes, and that is an error of sqrt(e) steps. Over 30 layers
   any difference grows to the size of the rounding noise itself, so nothing sharper can be said of the whole model
   than the size of that noise.

3. The noise of the whole model: a rounding error has the variance step^2 / 12; of 32 normal values the largest is
   about 2.4 times their root mean square, so a linear's input gets 2.4 / 127 / sqrt(12) = 0.55% of noise (0.5 to
   1% measured). A branch, attention or MLP, has two such inputs in series: 0.8%. If each of the 60 branches added
   that to the whole residual stream, independently, the logits would be off by 0.8% * sqrt(60) = 6% of their spread.
   The simulation in float64 measures 3.3 to 6.0% (root mean square 0.23 to 0.36 of logits that spread over 6 to 7),
   and a mean divergence of 0.003 to 0.007 nats. The bound is 10% and 0.02 nats for each prompt, and for all prompts
   together 1.5 times the simulation's root mean square.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bidtrie._native import PackedMatrix
from bidtrie.engine.base import Engine
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.models.checkpoint import Checkpoint, Tensor
from bidtrie.models.load import load_checkpoint
from reference.gguf_llama import gguf_weights
from reference.llama import Float64, ReferenceLlama
from reference.rounding import round_to_half, round_to_int8

PROMPTS = (
    "Page title: How to bake sourdough bread at home\nTopic category:",
    "The capital of France is Paris, and the capital of Germany is",
    "Best 4K TVs of 2024: our picks for gaming and movies, from $300 to $2,000",
)


@pytest.fixture(scope="module")
def checkpoint(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path)


@pytest.fixture(scope="module")
def weights(smollm2_path: Path) -> dict[str, np.ndarray]:
    """The file as gguf reads it."""
    return gguf_weights(smollm2_path)


def layers_of(checkpoint: Checkpoint, layers: list[int], vocabulary: int) -> Checkpoint:
    """The model with some of its layers and the first tokens of its vocabulary only."""
    tensors = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            if layer in layers:
                tensors[name.replace(f".{layer}.", f".{layers.index(layer)}.", 1)] = tensor
        elif name == "model.embed_tokens.weight":
            tensors[name] = Tensor(tensor.format, (vocabulary, tensor.shape[1]), tensor.data[:vocabulary])
        else:
            tensors[name] = tensor
    config = replace(checkpoint.config, num_layers=len(layers), vocab_size=vocabulary)
    return replace(checkpoint, config=config, tensors=tensors)


def chain_logits(engine: Engine, tokens: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] of a prompt."""
    sequence = engine.open()
    count = len(tokens)
    output = engine.step(TreeBatch.of(tokens, sequence, range(-1, count - 1), range(count)))
    engine.close(sequence)
    return output.logits.reshape(count, -1)


def test_the_file_is_q4_1(checkpoint: Checkpoint) -> None:
    formats = [tensor.format for tensor in checkpoint.tensors.values()]
    assert {name: formats.count(name) for name in set(formats)} == {"q4_1": 210, "q8_0": 1, "float32": 61}


def test_unpacked_weights_are_the_bits_of_gguf(
    checkpoint: Checkpoint, weights: dict[str, np.ndarray]
) -> None:
    assert checkpoint.tensors.keys() == weights.keys()
    for name, expected in weights.items():
        np.testing.assert_array_equal(
            checkpoint.tensors[name].dequantize(), expected, err_msg=name, strict=True
        )


def test_packed_weights_are_the_bits_of_gguf(checkpoint: Checkpoint, weights: dict[str, np.ndarray]) -> None:
    """A Q4_1 matrix of every shape, and the Q8_0 table, as the engine lays them out."""
    for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"):
        full = f"model.layers.3.{name}.weight"
        tensor = checkpoint.tensors[full]
        unpacked = PackedMatrix(tensor).unpack()
        np.testing.assert_array_equal(unpacked, weights[full], err_msg=name, strict=True)
    table = checkpoint.tensors["model.embed_tokens.weight"]
    unpacked = PackedMatrix(table).unpack()
    np.testing.assert_array_equal(unpacked, weights["model.embed_tokens.weight"], strict=True)


def test_the_engine_unpacks_to_the_bits_of_gguf(
    checkpoint: Checkpoint, weights: dict[str, np.ndarray]
) -> None:
    """Packed and unpacked by the engine, or by gguf: the float32 path gives the same bits on both."""
    tensors = {name: Tensor("float32", values.shape, values) for name, values in weights.items()}
    layers = [0, 11, 29]
    tokens = np.random.default_rng(1).integers(0, 512, 32).tolist()
    rows = []
    for source in (checkpoint, replace(checkpoint, tensors=tensors)):
        engine = NativeEngine(
            layers_of(source, layers, 512), threads=1, slots=64, max_nodes=32, weights="float32"
        )
        rows.append(chain_logits(engine, tokens))
        engine.shutdown()
    np.testing.assert_array_equal(rows[0], rows[1], strict=True)
    assert rows[0].std() > 1


@pytest.mark.parametrize("layer", [0, 3, 7, 11, 15, 19, 22, 25, 29])
def test_a_layer_rounds_as_it_says(checkpoint: Checkpoint, layer: int) -> None:
    """One layer alone, on chains of two tokens: part 2 of this module's docstring."""
    tokens = np.random.default_rng(2).integers(0, 512, (16, 2)).tolist()
    cut = layers_of(checkpoint, [layer], 512)
    exact = ReferenceLlama(cut)
    rounded = exact.rounding(round_to_int8, round_to_half)
    engine = NativeEngine(cut, threads=1, slots=64, max_nodes=64)
    off, noise = [], []
    for chain in tokens:
        expected = rounded.logits(chain)
        off += np.abs(chain_logits(engine, chain) - expected).max(axis=1).tolist()
        noise += np.abs(exact.logits(chain) - expected).max(axis=1).tolist()
    engine.shutdown()
    assert np.quantile(off, 0.1) < 1e-4
    assert np.max(off) < 3 * np.max(noise)
    assert np.min(noise) > 1e-2, "the rounding is too small to be told from none"


def noise_of(logits: np.ndarray, exact: Float64) -> float:
    return float(np.sqrt(np.square(logits - exact).mean()))


def divergence(logits: np.ndarray, exact: Float64) -> float:
    """Mean Kullback-Leibler divergence of rows, nats."""

    def log_softmax(x: Float64) -> Float64:
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(exact), log_softmax(logits.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> ReferenceLlama:
    """The dequantized model."""
    return ReferenceLlama(checkpoint)


@pytest.fixture(scope="module")
def exact_rows(checkpoint: Checkpoint, model: ReferenceLlama) -> list[tuple[list[int], Float64]]:
    """The prompts' tokens, and the dequantized model's logits."""
    prompts = [checkpoint.tokenizer.encode(text) for text in PROMPTS]
    return [(tokens, model.logits(tokens)) for tokens in prompts]


@pytest.fixture(scope="module")
def simulated(model: ReferenceLlama, exact_rows: list[tuple[list[int], Float64]]) -> list[Float64]:
    rounded = model.rounding(round_to_int8, round_to_half)
    return [rounded.logits(tokens) for tokens, _ in exact_rows]


def within_the_bound(
    rows: list[np.ndarray], exact_rows: list[tuple[list[int], Float64]], simulated: list[Float64]
) -> bool:
    """Part 3 of this module's docstring."""
    noises, limits = [], []
    for logits, (_, exact), simulation in zip(rows, exact_rows, simulated, strict=True):
        noises.append(noise_of(logits, exact))
        limits.append(1.5 * noise_of(simulation, exact))
        if noises[-1] > 0.1 * exact.std() or divergence(logits, exact) > 0.02:
            return False
    return np.square(noises).mean() <= np.square(limits).mean()


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> Iterator[NativeEngine]:
    engine = NativeEngine(checkpoint, threads=1, slots=64, max_nodes=64)
    yield engine
    engine.shutdown()


def test_noise_of_the_whole_model(
    engine: NativeEngine, exact_rows: list[tuple[list[int], Float64]], simulated: list[Float64]
) -> None:
    assert engine.spec.weights == "q4_1"
    rows = [chain_logits(engine, tokens) for tokens, _ in exact_rows]
    assert within_the_bound(rows, exact_rows, simulated)
    for logits, (_, exact) in zip(rows, exact_rows, strict=True):
        assert noise_of(logits, exact) > 0.01 * exact.std(), "weights are meant to be used as they are stored"


def seven_bits(x: Float64) -> Float64:
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.abs(groups).max(axis=-1, keepdims=True) / 63
    return (np.rint(groups / scale) * scale).reshape(x.shape)


def whole_rows(x: Float64) -> Float64:
    scale = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / scale) * scale


@pytest.mark.parametrize("worse", [seven_bits, whole_rows])
def test_a_worse_rounding_is_outside_the_bound(
    worse: Callable[[Float64], Float64],
    model: ReferenceLlama,
    exact_rows: list[tuple[list[int], Float64]],
    simulated: list[Float64],
) -> None:
    """Negative controls, in float64: the bound lies between the engine's rounding and the next coarser ones."""
    rounded = model.rounding(worse, round_to_half)
    assert not within_the_bound([rounded.logits(tokens) for tokens, _ in exact_rows], exact_rows, simulated)
    assert within_the_bound(simulated, exact_rows, simulated)
