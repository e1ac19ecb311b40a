"""`torch.ops.bidtrie.*` and the cutting of weights: what the vLLM engine is made of, and needs no vLLM for."""

from typing import Any

import numpy as np
import pytest
import torch
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.cuda.library import is_built
from bidtrie.engine.vllm import ops
from bidtrie.engine.vllm.codes import codes_of
from bidtrie.engine.vllm.shard import check_shards, columns_of, rows_of
from bidtrie.errors import ModelError
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from kernels.test_tree_attention import arrays, plan_of
from reference.rounding import round_to_int8
from reference.tiny_models import GROUP_FORMATS

FORMATS = {str(format): format for format in GROUP_FORMATS.values()}
ROWS, COLS = 43, 192


def coded(format: GroupFormat, seed: int = 0) -> GroupTensor:
    rng = np.random.default_rng(seed)
    return quantize(rng.standard_normal((ROWS, COLS)).astype(np.float32), format)


def arguments(tensor: GroupTensor) -> tuple[Any, ...]:
    return codes_of(tensor, torch.device("cpu"))


def inputs(nodes: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(nodes).standard_normal((nodes, COLS)).astype(np.float32))


def exact(tensor: GroupTensor, x: torch.Tensor) -> np.ndarray:
    """The product in float64, with activations rounded as the kernels round them."""
    return round_to_int8(x.numpy()).astype(np.float64) @ tensor.dequantize().astype(np.float64).T


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_linear(format: GroupFormat) -> None:
    tensor, x = coded(format), inputs(9)
    out = torch.ops.bidtrie.linear(x, *arguments(tensor))
    np.testing.assert_allclose(out.numpy(), exact(tensor, x), rtol=0, atol=2e-4)
    assert np.abs(out.numpy() - exact(coded(format, seed=1), x)).max() > 1, (
        "another weight is another product"
    )


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_embedding_and_candidates(format: GroupFormat) -> None:
    tensor, x = coded(format), inputs(3)
    codes = arguments(tensor)
    ids = torch.tensor([5, 0, 42, 5])
    np.testing.assert_array_equal(
        torch.ops.bidtrie.embedding(ids, *codes).numpy(), tensor.dequantize()[ids.numpy()]
    )
    offsets, wanted = (
        torch.tensor([0, 2, 2, 5], dtype=torch.int32),
        torch.tensor([7, 1, 0, 42, 7], dtype=torch.int32),
    )
    whole = torch.ops.bidtrie.linear(x, *codes)
    some = torch.ops.bidtrie.candidate_linear(x, offsets, wanted, *codes)
    expected = whole[torch.tensor([0, 0, 2, 2, 2]), wanted.long()]
    np.testing.assert_array_equal(some.numpy(), expected.numpy())
    weight = torch.from_numpy(tensor.dequantize())
    plain = torch.ops.bidtrie.candidate_head(x, offsets, wanted, weight)
    expected = (x.double() @ weight.double().T)[torch.tensor([0, 0, 2, 2, 2]), wanted.long()]
    np.testing.assert_allclose(plain.numpy(), expected.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("prefixes", [[0], [5, 0, 70]])
def test_attention_in_pytorch_is_that_of_the_kernels(prefixes: list[int]) -> None:
    """What other devices compute, and the CPU where heads have sizes that its kernels do not take."""
    _, (_, _, _, *view) = plan_of(1, prefixes, 30)
    tensors = [torch.from_numpy(array) for array in arrays(2, 30)]
    views = [torch.from_numpy(array) for array in view]
    native = torch.ops.bidtrie.tree_attention(*tensors, *views, 0.3)
    np.testing.assert_allclose(ops.gathered_attention(*tensors, *views, 0.3), native, rtol=0, atol=3e-6)
    odd = [tensor[..., :24].contiguous() for tensor in tensors]
    padded = [torch.nn.functional.pad(tensor, (0, 8)) for tensor in odd]
    expected = torch.ops.bidtrie.tree_attention(*padded, *views, 0.3)[..., :24]
    np.testing.assert_allclose(
        torch.ops.bidtrie.tree_attention(*odd, *views, 0.3), expected, rtol=0, atol=3e-6
    )


def test_the_fakes_have_the_shapes_of_the_ops() -> None:
    codes, x = arguments(coded(FORMATS["2:4-int4-g32"])), inputs(3)
    offsets, ids = torch.tensor([0, 1, 1, 2], dtype=torch.int32), torch.tensor([3, 4], dtype=torch.int32)
    _, (_, _, _, *view) = plan_of(1, [5], 3)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (torch.ops.bidtrie.linear, (x, *codes)),
        (torch.ops.bidtrie.embedding, (torch.tensor([1, 2]), *codes)),
        (torch.ops.bidtrie.candidate_linear, (x, offsets, ids, *codes)),
        (torch.ops.bidtrie.candidate_head, (x, offsets, ids, torch.ones(ROWS, COLS))),
        (
            torch.ops.bidtrie.tree_attention,
            (*map(torch.from_numpy, arrays(2, 3)), *map(torch.from_numpy, view), 0.3),
        ),
    ]
    for op, given in calls:
        torch.library.opcheck(op.default, given, test_utils=("test_schema", "test_faketensor"))


def test_where_there_are_kernels() -> None:
    assert ops.has_codes_kernel(torch.device("cpu"), torch.float32)
    assert not ops.has_codes_kernel(torch.device("meta"), torch.float32)
    assert not ops.has_codes_kernel(torch.device("cuda"), torch.float32), "16-bit types alone"
    assert ops.has_codes_kernel(torch.device("cuda"), torch.bfloat16) == is_built()


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_parts_of_a_weight(format: GroupFormat) -> None:
    whole = coded(format)
    values = whole.dequantize()
    part = rows_of(whole, 7, 20)
    assert part.problem() is None
    np.testing.assert_array_equal(part.dequantize(), values[7:20])
    if COLS // 2 % format.group_size == 0:
        parts = [columns_of("o_proj", whole, rank, 2) for rank in (0, 1)]
        assert all(each.problem() is None for each in parts)
        np.testing.assert_array_equal(np.hstack([each.dequantize() for each in parts]), values)


def test_a_part_that_ends_within_a_group_is_named() -> None:
    tensor = coded(GroupFormat(4, 64))
    columns_of("x", tensor, 0, 3)
    with pytest.raises(
        ModelError, match=r"layers.0.mlp.down_proj.weight: 192 columns over 2 GPUs.*groups of 64"
    ):
        check_shards({"model.layers.0.mlp.down_proj.weight": tensor}, 2)
    check_shards({"model.layers.0.mlp.up_proj.weight": tensor}, 2)


def test_one_gpu_takes_a_weight_whose_last_group_is_short() -> None:
    tensor = coded(GroupFormat(8, 128))
    check_shards({"model.layers.0.self_attn.o_proj.weight": tensor}, 1)
    np.testing.assert_array_equal(columns_of("x", tensor, 0, 1).dequantize(), tensor.dequantize())
