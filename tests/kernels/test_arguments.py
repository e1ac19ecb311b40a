"""What the native module is given is checked: a wrong argument is an error, never a crash."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bidtrie._native import PackedMatrix, instruction_sets
from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import Candidates, TreeBatch
from bidtrie.errors import EngineError, ModelError
from bidtrie.models.checkpoint import Checkpoint, Tensor
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from hypothesis import given
from hypothesis import strategies as st
from kernels.matrices import KINDS, random_groups
from reference.tiny_models import quantized, random_checkpoint


@pytest.mark.parametrize(
    ("format", "shape", "data", "message"),
    [
        ("q5_1", (4, 32), np.zeros((4, 20), np.uint8), 'format "q5_1"'),
        ("q4_1", (4, 32), np.zeros((4, 20), np.float32), "uint8"),
        ("float32", (4, 32), np.zeros((4, 128), np.uint8), "float32"),
        ("q4_1", (4, 33), np.zeros((4, 20), np.uint8), "multiple of 32"),
        ("q4_1", (4, 32), np.zeros((4, 19), np.uint8), "76 bytes, expected 80"),
        ("q8_0", (4, 32), np.zeros((4, 35), np.uint8), "140 bytes, expected 136"),
        ("q4_1", (4, 0), np.zeros((4, 0), np.uint8), "impossible shape"),
        ("q4_1", (1 << 31, 1 << 31), np.zeros(20, np.uint8), "impossible shape"),
        ("float32", (4,), np.zeros(4, np.float32), "two dimensions"),
    ],
)
def test_wrong_matrices(format: str, shape: tuple[int, ...], data: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        PackedMatrix(Tensor(format, shape, data))


def groups(format: GroupFormat) -> GroupTensor:
    return random_groups(format, 4, 64, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            replace(groups(KINDS["int4"]), codes=np.zeros((4, 31), np.uint8)),
            "124 bytes of codes, expected 128",
        ),
        (
            replace(groups(KINDS["int8"]), codes=np.zeros((4, 32), np.uint8)),
            "128 bytes of codes, expected 256",
        ),
        (replace(groups(KINDS["int4"]), codes=np.zeros((4, 32), np.int8)), "codes as an array of uint8"),
        (
            replace(groups(KINDS["int4"]), scales=np.zeros((4, 1), np.float16)),
            "8 bytes of scales, expected 16",
        ),
        (
            replace(groups(KINDS["int4"]), scales=np.zeros((4, 2), np.float32)),
            "scales as an array of float16",
        ),
        (replace(groups(KINDS["int4-min"]), minimums=None), "minimums is not a C-contiguous array"),
        (replace(groups(KINDS["int4-table"]), table=np.zeros(15, np.int8)), "15 entries, expected 16"),
        (replace(groups(KINDS["int4-table"]), table=np.full(16, 33, np.int8)), "table entry 33"),
        (replace(groups(KINDS["2:4"]), positions=np.zeros((4, 8), np.uint8)), "do not rise"),
        (
            replace(groups(KINDS["1:4"]), positions=np.zeros((4, 3), np.uint8)),
            "bytes of positions, expected 16",
        ),
        (replace(groups(KINDS["int4"]), shape=(4, 72)), "multiple of 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_groups(tensor: GroupTensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        PackedMatrix(tensor)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 3},
        {"group_size": 48},
        {"group_size": 0},
        {"group_size": 512},
        {"minimum": True, "table": True},
        {"bits": 8, "table": True},
        {"pattern": "2:4", "minimum": True},
        {"pattern": "3:4"},
        {"pattern": "2:4", "bits": 8},
    ],
    ids=str,
)
def test_wrong_group_formats(wrong: dict[str, Any]) -> None:
    """The native side takes any object with these fields, and believes none."""
    fields: dict[str, Any] = {
        "bits": 4,
        "group_size": 32,
        "minimum": False,
        "table": False,
        "pattern": "dense",
    }
    zeros = np.zeros((4, 64), np.uint8)
    halves = np.zeros((4, 2), np.float16)
    tensor = SimpleNamespace(
        format=SimpleNamespace(**(fields | wrong)),
        shape=(4, 64),
        codes=zeros,
        scales=halves,
        minimums=halves,
        table=np.zeros(16, np.int8),
        positions=zeros,
    )
    with pytest.raises(ModelError):
        PackedMatrix(tensor)  # type: ignore[arg-type]


def test_wrong_products() -> None:
    matrix = PackedMatrix(Tensor("float32", (4, 3), np.ones((4, 3), np.float32)))
    x = np.ones((2, 3), np.float32)
    with pytest.raises(EngineError, match="2 columns, expected 3"):
        matrix.linear(x[:, :2].copy())
    with pytest.raises(EngineError, match=f"expected {instruction_sets()[0]}"):
        matrix.linear(x, "mmx")
    for wrong in (-1, 4, 2**31 - 1):
        with pytest.raises(EngineError, match="expected 0 to 3"):
            matrix.rows(x, np.array([wrong], np.int32))
    for wrong_x in (x.astype(np.float64), x[0], x[:, ::2], None):
        with pytest.raises(TypeError):
            matrix.linear(wrong_x)


def without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    return replace(checkpoint, tensors={k: v for k, v in checkpoint.tensors.items() if k != name})


def with_tensor(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Checkpoint:
    return replace(checkpoint, tensors={**checkpoint.tensors, name: tensor})


@pytest.mark.parametrize("make", [random_checkpoint, lambda: quantized(random_checkpoint())])
def test_every_tensor_is_needed_and_checked(make: Any) -> None:
    checkpoint = make()
    for name, tensor in checkpoint.tensors.items():
        with pytest.raises(ModelError, match=f"{name}: missing"):
            NativeEngine(without(checkpoint, name), threads=1, slots=8, max_nodes=8)
        shape = (tensor.shape[0] + 1, *tensor.shape[1:])
        with pytest.raises(ModelError, match=f"{name}: shape"):
            NativeEngine(
                with_tensor(checkpoint, name, replace(tensor, shape=shape)), threads=1, slots=8, max_nodes=8
            )
        with pytest.raises(ModelError, match=f"{name}: .* bytes"):
            NativeEngine(
                with_tensor(checkpoint, name, replace(tensor, data=tensor.data[:-1])),
                threads=1,
                slots=8,
                max_nodes=8,
            )


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"threads": 2000},
        {"slots": 0},
        {"slots": 1 << 40},
        {"slots": "many"},
        {"max_nodes": 0},
        {"max_nodes": -1},
        {"weights": "q2"},
        {"kv": "int8"},
        {"instruction_set": "mmx"},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=next(iter(wrong)).replace("_", "[_ ]")):
        NativeEngine(random_checkpoint(), **wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"head_dim": 15},
        {"num_heads": 0},
        {"num_kv_heads": 3},
        {"vocab_size": -1},
        {"hidden_size": 1 << 60},
        {"rms_norm_eps": float("nan")},
        {"inv_freq": np.ones(3, np.float32)},
        {"inv_freq": np.full(8, np.inf, np.float32)},
        {"attention_factor": "one"},
        {"num_layers": 0},
    ],
)
def test_wrong_configuration(change: dict[str, Any]) -> None:
    checkpoint = random_checkpoint()
    with pytest.raises(ModelError, match="model configuration"):
        NativeEngine(
            replace(checkpoint, config=replace(checkpoint.config, **change)), threads=1, slots=8, max_nodes=8
        )


@pytest.fixture(scope="module")
def engine() -> NativeEngine:
    return NativeEngine(random_checkpoint(), threads=1, slots=64, max_nodes=16)


def good_batch(sequence: int) -> dict[str, Any]:
    return {
        "tokens": np.array([1, 2, 3], np.int32),
        "sequence": np.full(3, sequence, np.int32),
        "parent": np.array([-1, 0, 0], np.int32),
        "logits_for": np.array([2, 0], np.int32),
        "candidates": Candidates.of([[5, 6], []]),
        "logsumexp": np.array([True, False]),
    }


WRONG = [
    None,
    [1, 2, 3],
    np.zeros(3, np.int64),
    np.zeros(3, np.float32),
    np.zeros((3, 1), np.int32),
    np.zeros(4, np.int32),
    np.array([-3, 1 << 30, 2], np.int32),
    np.full(3, np.iinfo(np.int32).min, np.int32),
    np.full(3, np.iinfo(np.int32).max, np.int32),
]


@pytest.mark.parametrize("field", ["tokens", "sequence", "parent", "logits_for"])
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_arrays_change_nothing(engine: NativeEngine, field: str, wrong: Any) -> None:
    sequence = engine.open()
    alive = engine.step(TreeBatch(**good_batch(sequence))).nodes
    with pytest.raises(EngineError):
        engine.step(TreeBatch(**{**good_batch(sequence), field: wrong}))
    engine.keep(alive)  # they would be gone if the step had been begun
    engine.close(sequence)
    assert engine.free_slots() == 64


@pytest.mark.parametrize(
    ("offsets", "ids"),
    [
        ([0, 2], [5, 6]),
        ([], []),
        ([0, 2, 1], [5, 6]),
        ([1, 2, 2], [5, 6]),
        ([0, 2, 3], [5, 6]),
        ([0, -1, 2], [5, 6]),
        ([0, 2, 2], [5, 300]),
        ([0, 2, 2], [-1, 5]),
        ([0, 2**31 - 1, 2**31 - 1], [5, 6]),
    ],
)
def test_wrong_candidates(engine: NativeEngine, offsets: list[int], ids: list[int]) -> None:
    candidates = Candidates(np.array(offsets, np.int32), np.array(ids, np.int32))
    sequence = engine.open()
    with pytest.raises(EngineError, match="candidates"):
        engine.step(TreeBatch(**{**good_batch(sequence), "candidates": candidates}))
    engine.close(sequence)


@pytest.mark.parametrize(
    "logsumexp", [np.array([True]), np.array([1, 0]), np.array([], np.bool_), [True, False]], ids=str
)
def test_wrong_logsumexp(engine: NativeEngine, logsumexp: Any) -> None:
    sequence = engine.open()
    with pytest.raises(EngineError, match="logsumexp"):
        engine.step(TreeBatch(**{**good_batch(sequence), "logsumexp": logsumexp}))
    engine.close(sequence)


@pytest.mark.parametrize("wrong", [-1, 99, 2**31, -(2**40), 1.5, "0", None])
def test_wrong_handles(engine: NativeEngine, wrong: Any) -> None:
    for call in (engine.close, engine.length, lambda s: engine.commit(s, [])):
        with pytest.raises(EngineError, match="sequence"):
            call(wrong)
    for call in (engine.keep, engine.release):
        with pytest.raises(EngineError, match="node"):
            call([wrong])
    sequence = engine.open()
    if wrong is not None:
        with pytest.raises(EngineError, match="sequence"):
            engine.open(wrong)
        with pytest.raises(EngineError, match="length"):
            engine.open(sequence, wrong)
    engine.close(sequence)


_numbers = st.integers(-4, 20) | st.sampled_from([-(2**31), 2**31 - 1, 299, 300])
_vectors = st.lists(_numbers, max_size=20)


@given(
    _vectors,
    _vectors,
    _vectors,
    _vectors,
    st.none() | st.tuples(_vectors, _vectors),
    st.none() | st.lists(st.booleans()),
)
def test_any_batch(
    engine: NativeEngine,
    tokens: list[int],
    sequence: list[int],
    parent: list[int],
    logits_for: list[int],
    candidates: tuple[list[int], list[int]] | None,
    logsumexp: list[bool] | None,
) -> None:
    """Whatever numbers come, the answer is an output of the right size or an EngineError."""
    own = engine.open()
    count = len(tokens)

    def vector(values: list[int]) -> Any:
        return np.array(values, np.int32)

    def sized(values: list[int], filler: int) -> Any:
        """Mostly of the right length, so that more than the first check is reached."""
        return vector(values if len(values) % 5 == 0 else (values + [filler] * count)[:count])

    batch = TreeBatch(
        vector(tokens),
        sized([own if n >= 0 else n for n in sequence], own),
        sized(parent, -1),
        vector(logits_for),
        None if candidates is None else Candidates(vector(candidates[0]), vector(candidates[1])),
        None if logsumexp is None else np.array(logsumexp, np.bool_),
    )
    before = engine.free_slots()
    try:
        output = engine.step(batch)
    except EngineError:
        assert engine.free_slots() == before
    else:
        assert len(output.nodes) == count
        assert output.offsets[-1] == len(output.logits)
        assert np.isfinite(output.logits).all()
    engine.close(own)


def test_shutdown_is_final() -> None:
    engine = NativeEngine(random_checkpoint(), threads=2, slots=8, max_nodes=8)
    sequence = engine.open()
    engine.shutdown()
    engine.shutdown()
    for call in (engine.open, engine.free_slots, lambda: engine.length(sequence)):
        with pytest.raises(EngineError, match="shut down"):
            call()
