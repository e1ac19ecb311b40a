"""What Python checks before a CUDA kernel starts, on the CPU's tensors: every error names the argument."""

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.cuda import candidate_head as head_module
from bidtrie.cuda import library as library_module
from bidtrie.cuda import linear as linear_module
from bidtrie.cuda import tree_attention as attention_module
from bidtrie.cuda.tensors import expect, expect_aligned
from bidtrie.errors import EngineError, ModelError
from bidtrie.models.group_tensor import GroupFormat, GroupTensor

_CPU = torch.device("cpu")
_HALF = (torch.float16, torch.bfloat16)


def test_a_tensor_that_fits_passes() -> None:
    expect("x", torch.zeros(3, 8, dtype=torch.float16), (None, 8), _HALF, _CPU)
    expect("x", torch.zeros(3, 16, dtype=torch.bfloat16)[:, :8], (3, 8), _HALF, _CPU)
    expect("x", torch.zeros(8, 0, dtype=torch.float16).T, (0, 8), _HALF, _CPU)  # nothing is read of it


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 9), r"x has the shape \[3, 9\], expected \[any, 8\]"),
        (torch.zeros(8), r"x has the shape \[8\], expected \[any, 8\]"),
        (torch.zeros(1, 3, 8), r"x has the shape \[1, 3, 8\], expected \[any, 8\]"),
        (torch.zeros(3, 8), r"x is torch.float32, expected torch.float16 or torch.bfloat16"),
        (torch.zeros(3, 8, dtype=torch.float16, device="meta"), "x is on meta, expected cpu"),
        (torch.zeros(8, 3, dtype=torch.float16).T, "x has a stride of 3 in its last dimension, expected 1"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        expect("x", tensor, (None, 8), _HALF, _CPU)


def _aligned(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Zeros whose data begin at a multiple of 64 bytes, which PyTorch does not promise in a slice."""
    count = int(np.prod(shape))
    raw = torch.zeros(count * dtype.itemsize + 64, dtype=torch.uint8)
    first = -raw.data_ptr() % 64
    return raw[first : first + count * dtype.itemsize].view(dtype).view(shape)


def test_alignment() -> None:
    whole = _aligned(4, 24)
    expect_aligned("x", whole, whole.stride(0))
    expect_aligned("x", whole[:, 8:], 24)
    for tensor, stride in ((whole[:, 1:], 24), (whole[:, 4:], None), (whole, 20)):
        with pytest.raises(EngineError, match=r"x is not aligned: .* multiples of 16 bytes"):
            expect_aligned("x", tensor, stride)
    expect_aligned("x", _aligned(4, 20, dtype=torch.float32), 20)  # the same stride in bytes that fit


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library_module.library.cache_clear()
    monkeypatch.setattr(library_module, "_NAME", "libbidtrie_absent.so")
    yield
    library_module.library.cache_clear()


@pytest.mark.usefixtures("absent")
def test_a_missing_library_is_said_with_advice() -> None:
    assert not library_module.is_built()
    with pytest.raises(EngineError, match=r"libbidtrie_absent.so is not installed: .* BIDTRIE_CUDA=1"):
        library_module.library()
    with pytest.raises(EngineError, match="BIDTRIE_CUDA=1"):
        linear_module.PackedLinear(_matrix(GroupFormat(4, 32)), _CPU)


_C_TYPES = {"int": ctypes.c_int, "std::int64_t": ctypes.c_int64, "float": ctypes.c_float, "void": None}


def _c_type(text: str) -> type | None:
    if "*" in text:
        return ctypes.c_void_p
    return _C_TYPES[text.replace("const ", "").strip()]


def test_signatures_are_those_of_the_source() -> None:
    source = (Path(__file__).parents[2] / "kernels/cuda/library.cu").read_text(encoding="utf-8")
    found = re.findall(r"^([\w:]+(?: [\w:]+)*[ *]+)(bidtrie_\w+)\(([^)]*)\) \{", source, re.MULTILINE)
    declared = {
        name: (
            [_c_type(one.rpartition(" ")[0] + "*" * ("*" in one)) for one in parts.split(",")],
            _c_type(result),
        )
        for result, name, parts in found
    }
    declared["bidtrie_cuda_error"] = (declared["bidtrie_cuda_error"][0], ctypes.c_char_p)
    assert declared == library_module._SIGNATURES


def test_formats_are_numbered_as_in_the_source() -> None:
    header = (Path(__file__).parents[2] / "kernels/include/bidtrie/weights.h").read_text(encoding="utf-8")

    def entries(name: str) -> list[str]:
        found = re.search(rf"enum class {name} : std::uint8_t \{{(.*?)\}}", header, re.DOTALL)
        assert found
        return re.findall(r"\bk\w+", re.sub(r"//.*", "", found[1]))

    codes = {"kInt8": "int8", "kInt4": "int4", "kInt4Min": "int4-min", "kInt4Table": "int4-table"}
    numbered = {codes[name]: at for at, name in enumerate(entries("Codes")) if name in codes}
    assert numbered == library_module.CODES
    patterns = {"kDense": "dense", "k2of4": "2:4", "k1of4": "1:4"}
    assert {patterns[name]: at for at, name in enumerate(entries("Pattern"))} == library_module.PATTERNS


class _Recorder:
    """Stands in for the library where there is none: answers sizes and plans, and keeps what a kernel was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.packed_bytes, self.pack_error, self.cuda_error = 1024, 0, 0

    def bidtrie_packed_bytes(self, *arguments: Any) -> int:
        return self.packed_bytes

    def bidtrie_pack(self, *arguments: Any) -> int:
        return self.pack_error

    def bidtrie_linear_plan(self, *arguments: Any) -> None:
        arguments[-1][:] = [8, 1, 0, 0]

    def bidtrie_attention_workspace_bytes(self, *arguments: Any) -> int:
        return 0

    def bidtrie_cuda_error(self, code: int) -> bytes:
        return b"an illegal memory access"

    def __getattr__(self, name: str) -> Callable[..., int]:
        def kernel(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            return self.cuda_error

        return kernel


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> _Recorder:
    made = _Recorder()
    for module in (linear_module, attention_module, head_module, library_module):
        monkeypatch.setattr(module, "library", lambda: made)
    for module in (linear_module, attention_module, head_module):
        monkeypatch.setattr(module, "stream", lambda device: 0)
    for module in (linear_module, attention_module):
        monkeypatch.setattr(module, "multiprocessors", lambda device: 100)
    return made


def _reached(recorder: _Recorder, name: str) -> None:
    """The one call went to this kernel, with as many arguments as it takes."""
    ((called, arguments),) = recorder.calls
    assert called == name
    types, _ = library_module._SIGNATURES[name]
    assert len(arguments) == len(types)
    for argument, wanted in zip(arguments, types, strict=True):
        wanted.from_param(argument)  # type: ignore[attr-defined]


def test_an_error_of_cuda_is_raised_with_its_reason(recorder: _Recorder) -> None:
    library_module.check(0, "linear")
    with pytest.raises(EngineError, match="linear: CUDA error 700: an illegal memory access"):
        library_module.check(700, "linear")


def _matrix(format: GroupFormat) -> GroupTensor:
    return quantize(np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32), format)


def test_formats_that_the_kernels_do_not_take(recorder: _Recorder) -> None:
    recorder.packed_bytes = -1
    with pytest.raises(ModelError, match="int4-g32 with 64 columns"):
        linear_module.PackedLinear(_matrix(GroupFormat(4, 32)), _CPU)
    recorder.packed_bytes, recorder.pack_error = 1024, 3
    with pytest.raises(ModelError, match="positions of a sparse matrix do not ascend"):
        linear_module.PackedLinear(_matrix(GroupFormat(4, 32, pattern="2:4")), _CPU)


@pytest.mark.skipif(not library_module.is_built(), reason="the library of kernels is not built")
def test_packing_errors_of_the_library_itself() -> None:
    sparse = _matrix(GroupFormat(4, 32, pattern="2:4"))
    assert sparse.positions is not None
    with pytest.raises(ModelError, match="positions of a sparse matrix do not ascend"):
        linear_module.PackedLinear(replace(sparse, positions=np.zeros_like(sparse.positions)), _CPU)
    dense = _matrix(GroupFormat(4, 32))
    with pytest.raises(ModelError, match="with 63 columns"):
        linear_module.PackedLinear(replace(dense, shape=(16, 63)), _CPU)


def _linear_call() -> dict[str, torch.Tensor]:
    return {"x": _aligned(3, 64), "bias": _aligned(16), "out": _aligned(3, 16)}


@pytest.mark.parametrize(
    ("format", "numbers"),
    [
        (GroupFormat(8, 32), (1, 0, 32)),
        (GroupFormat(4, 64), (2, 0, 64)),
        (GroupFormat(4, 16, minimum=True), (3, 0, 16)),
        (GroupFormat(4, 32, table=True, pattern="2:4"), (4, 1, 32)),
        (GroupFormat(4, 32, pattern="1:4"), (2, 2, 32)),
    ],
    ids=str,
)
def test_a_format_reaches_the_kernel_as_numbers(
    recorder: _Recorder, format: GroupFormat, numbers: tuple[int, int, int]
) -> None:
    linear_module.PackedLinear(_matrix(format), _CPU)(**_linear_call())
    _reached(recorder, "bidtrie_linear")
    assert recorder.calls[0][1][:3] == numbers


def test_a_linear_of_fitting_arguments_reaches_the_kernel(recorder: _Recorder) -> None:
    linear = linear_module.PackedLinear(_matrix(GroupFormat(4, 32)), _CPU)
    linear(**_linear_call())
    _reached(recorder, "bidtrie_linear")
    assert linear(_aligned(0, 64)).shape == (0, 16)
    assert len(recorder.calls) == 1  # no nodes, no kernel
    recorder.cuda_error = 700
    with pytest.raises(EngineError, match="linear: CUDA error 700"):
        linear(**_linear_call())


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("x", _aligned(3, 48), "x has the shape"),
        ("x", _aligned(3, 64, dtype=torch.float32), "x is torch.float32"),
        ("x", _aligned(3, 68)[:, 4:], "x is not aligned"),
        ("x", _aligned(129, 64), "x has 129 rows, expected at most max_nodes = 128"),
        ("bias", _aligned(15), "bias has the shape"),
        ("bias", _aligned(16, dtype=torch.bfloat16), "bias is torch.bfloat16, expected torch.float16"),
        ("out", _aligned(4, 16), "out has the shape"),
        ("out", _aligned(3, 16, dtype=torch.bfloat16), "out is torch.bfloat16"),
    ],
)
def test_a_linear_names_what_does_not_fit(
    recorder: _Recorder, name: str, tensor: torch.Tensor, message: str
) -> None:
    linear = linear_module.PackedLinear(_matrix(GroupFormat(4, 32)), _CPU)
    with pytest.raises(EngineError, match=message):
        linear(**_linear_call() | {name: tensor})
    assert recorder.calls == []


def _integers(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def _head_call() -> dict[str, Any]:
    tensors = {"head": _aligned(100, 32), "hidden": _aligned(3, 32)}
    return tensors | {"offsets": _integers(4), "ids": _integers(7), "max_candidates": 5, "top_k": 2}


def test_a_head_of_fitting_arguments_reaches_the_kernel(recorder: _Recorder) -> None:
    logits, best, log_probability = head_module.candidate_head(**_head_call())
    _reached(recorder, "bidtrie_candidate_head")
    assert best is not None
    assert log_probability is not None
    assert (logits.shape, best.shape, log_probability.shape) == ((7,), (3, 2), (3, 2))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("hidden", _aligned(3, 36), "hidden has 36 columns, expected a multiple of 8"),
        ("hidden", _aligned(96), "hidden has the shape"),
        ("hidden", _aligned(3, 32, dtype=torch.float32), "hidden is torch.float32"),
        ("hidden", _aligned(3, 36)[:, 4:], "hidden is not aligned"),
        ("head", _aligned(100, 40), "head has the shape"),
        ("head", _aligned(100, 32, dtype=torch.bfloat16), "head is torch.bfloat16, expected torch.float16"),
        ("head", _aligned(100, 40)[:, 8:], "head must be contiguous"),
        ("head", _aligned(3201)[1:].view(100, 32), "head is not aligned"),
        ("offsets", _integers(3), "offsets has the shape"),
        ("offsets", _integers(4).long(), "offsets is torch.int64"),
        ("ids", _integers(7, 1), "ids has the shape"),
        ("ids", _integers(14)[::2], "ids has a stride of 2"),
    ],
)
def test_a_head_names_what_does_not_fit(
    recorder: _Recorder, name: str, tensor: torch.Tensor, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        head_module.candidate_head(**_head_call() | {name: tensor})
    assert recorder.calls == []


_LAYOUT = {
    "page_table": _integers(2, 4),
    "first_node": _integers(3),
    "prefix_length": _integers(2),
    "length": _integers(2),
    "mask": _integers(3, 1),
}
_CACHE = _aligned(8, 16, 3, 64)


def _attention() -> attention_module.TreeAttention:
    return attention_module.TreeAttention(9, 3, 64, 2, 8, 512, _CPU, splits=1)


def _attention_call(changed: dict[str, torch.Tensor]) -> dict[str, Any]:
    values = {"queries": _aligned(3, 9, 64), "keys": _CACHE, "values": _CACHE, **_LAYOUT, **changed}
    layout = attention_module.TreeLayout(**{name: values.pop(name) for name in _LAYOUT})
    return {**values, "layout": layout, "scale": 0.125}


def test_an_attention_of_fitting_arguments_reaches_the_kernel(recorder: _Recorder) -> None:
    out = _attention()(**_attention_call({}))
    _reached(recorder, "bidtrie_tree_attention")
    assert out.shape == (3, 9, 64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"queries": _aligned(3, 8, 64)}, "queries has the shape"),
        ({"queries": _aligned(9, 9, 64)}, "queries has 9 rows, expected at most max_nodes = 8"),
        ({"queries": _aligned(3, 9, 128)[..., :64]}, "queries: heads of a node must lie side by side"),
        ({"queries": _aligned(1729)[1:].view(3, 9, 64)}, "queries is not aligned"),
        ({"keys": _aligned(8, 16, 2, 64)}, "keys has the shape"),
        ({"keys": _CACHE.bfloat16()}, "keys is torch.bfloat16"),
        ({"values": _aligned(7, 16, 3, 64)}, "values has the shape"),
        ({"values": _aligned(8, 16, 6, 64)[:, :, :3]}, "keys and values have different strides"),
        (dict.fromkeys(("keys", "values"), _aligned(8, 16, 3, 68)[..., :64]), "keys is not aligned"),
        ({"page_table": _integers(3, 4)}, "page_table has the shape"),
        ({"page_table": _integers(2, 8)[:, :4]}, "page_table and mask must be contiguous"),
        ({"first_node": _integers(2)}, "first_node has the shape"),
        ({"prefix_length": _integers(2).long()}, "prefix_length is torch.int64"),
        ({"length": _integers(3)}, "length has the shape"),
        ({"mask": _integers(4, 1)}, "mask has the shape"),
    ],
)
def test_an_attention_names_what_does_not_fit(
    recorder: _Recorder, changed: dict[str, torch.Tensor], message: str
) -> None:
    attention = _attention()
    with pytest.raises(EngineError, match=message):
        attention(**_attention_call(changed))
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_size", "message"),
    [
        (9, 3, 80, "head_size is 80, expected 64 or 128"),
        (9, 2, 64, "heads is 9, expected a multiple of kv_heads = 2"),
        (9, 0, 64, "expected a multiple of kv_heads = 0"),
    ],
)
def test_an_attention_of_an_impossible_shape(
    heads: int, kv_heads: int, head_size: int, message: str, recorder: _Recorder
) -> None:
    with pytest.raises(EngineError, match=message):
        attention_module.TreeAttention(heads, kv_heads, head_size, 1, 8, 512, _CPU, splits=1)
