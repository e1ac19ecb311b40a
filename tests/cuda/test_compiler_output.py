"""The readers of what CUDA's tools print, on texts of known content, and what the benchmark calls a fault."""

from dataclasses import replace

import pytest
from bidtrie.errors import BidtrieError

from bench.cuda import ptxas, sass
from bench.cuda.build import Row, faults

_FEW = "_ZN7bidtrie4cuda10linear_fewINS0_8Bfloat16ELi1EEEvNS0_12LinearKernelE"
_LOG = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{_FEW}' for 'sm_90'
ptxas info    : Function properties for {_FEW}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 4112 bytes smem
ptxas info    : Compile time = 20.000 ms
ptxas info    : Compiling entry function 'plain' for 'sm_90a'
ptxas info    : Function properties for plain
    40 bytes stack frame, 36 bytes spill stores, 84 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers, 40 bytes cumulative stack size, 400 bytes cmem[0]
ptxas info    : Function properties for _Z6helperv
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
"""


def test_usage_of_every_kernel_is_read() -> None:
    assert ptxas.parse(_LOG) == [
        ptxas.Usage(_FEW, registers=80, stack_bytes=0, spill_bytes=0, shared_bytes=4112),
        ptxas.Usage("plain", registers=128, stack_bytes=56, spill_bytes=132, shared_bytes=0),
    ]


@pytest.mark.parametrize("word", ["Used 80", "0 bytes stack frame, 0"])
def test_a_log_that_leaves_something_out_is_refused(word: str) -> None:
    lines = [line for line in _LOG.splitlines() if word not in line]
    with pytest.raises(BidtrieError, match=f"ptxas does not say the .* of {_FEW}"):
        ptxas.parse("\n".join(lines))


def test_launch_bounds_are_read() -> None:
    ptx = """\
.visible .entry one(
	.param .align 8 .b8 one_param_0[8]
)
.maxntid 256, 1, 1
.minnctapersm 2
{
}
.entry unbounded(
	.param .u64 unbounded_param_0
)
{
}
.entry two()
.maxntid 32, 4, 2
{
}
.entry three()
.maxntid 128
{
}
"""
    assert ptxas.block_threads(ptx) == {"one": 256, "two": 256, "three": 128}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (
            "void bidtrie::cuda::linear_few<bidtrie::cuda::Bfloat16, (bidtrie::Codes)2, (bidtrie::Pattern)0, "
            "(bidtrie::cuda::Scales)1, 1>(bidtrie::cuda::LinearKernel)",
            "linear_few<bf16, int4, dense, once, 8 nodes>",
        ),
        (
            "void bidtrie::cuda::linear_many<bidtrie::cuda::Float16, (bidtrie::Codes)4, "
            "(bidtrie::cuda::Scales)4>(bidtrie::cuda::LinearKernel)",
            "linear_many<fp16, int4-table, four times>",
        ),
        (
            "void bidtrie::cuda::tree_attention_kernel<bidtrie::cuda::Float16, 64>(bidtrie::cuda::AttentionKernel)",
            "tree_attention_kernel<fp16, heads of 64>",
        ),
        ("bidtrie::cuda::candidate_top_k(bidtrie::cuda::CandidateHead)", "candidate_top_k"),
        ("void other<(Unknown)7, 3>(int)", "other<(Unknown)7, 3>"),
        ("plain", "plain"),
    ],
)
def test_names_are_short(name: str, short: str) -> None:
    assert ptxas.short_name(name) == short


def test_instructions_are_counted_by_kernel() -> None:
    listing = """\
\t.section\t.text.one,"ax",@progbits
.text.one:
        /*0000*/                   LDC R1, c[0x0][0x37c] ;
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.NA.128.CONSTANT R8, desc[UR4][R2.64+0x10] ;
        /*0030*/               @P1 LDG.E.NA.64.CONSTANT R8, desc[UR4][R2.64+0x10] ;
        /*0040*/                   LDGSTS.E.BYPASS.128 [R1], desc[UR4][R2.64] ;
        /*0050*/                   LDGDEPBAR ;
        /*0060*/                   LDS.128 R4, [R6] ;
        /*0070*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
.text.two:
        /*0000*/             @!UP0 LDG.E R4, desc[UR4][R2.64] ;
        /*12340*/                  HMMA.SP.16832.F32 R4, R8, R12, R4, R2, 0x0 ;
        /*12350*/                  HMMA.SP.16832.F32 R4, R8, R12, R4, R2, 0x0 ;
"""
    assert sass.count(listing) == {
        "one": sass.Instructions(loads_128=2, weights_128=1, loads_other=1, tensor=1, tensor_sparse=0),
        "two": sass.Instructions(loads_128=0, weights_128=0, loads_other=1, tensor=0, tensor_sparse=2),
    }


def _row(kernel: str, instructions: sass.Instructions | None) -> Row:
    return Row(90, "one.cu", kernel, 256, 100, 0, 0, 0, 16, "registers", instructions)


_DENSE = sass.Instructions(loads_128=20, weights_128=9, loads_other=3, tensor=40, tensor_sparse=0)
_SPARSE = replace(_DENSE, weights_128=0, tensor=0, tensor_sparse=40)
_HEAD = replace(_DENSE, tensor=0)
_GOOD = {
    "dense": _row("linear_few<bf16, int4, dense, once, 8 nodes>", _DENSE),
    "sparse": _row("linear_few<bf16, int4, 2:4, once, 8 nodes>", _SPARSE),
    "many": replace(_row("linear_many<bf16, int4, once>", _DENSE), spill_bytes=12),
    "attention": _row("tree_attention_kernel<bf16, heads of 64>", replace(_DENSE, weights_128=0)),
    "head": _row("candidate_logits<bf16>", _HEAD),
}


@pytest.mark.parametrize("name", _GOOD)
def test_a_good_kernel_has_no_faults(name: str) -> None:
    assert faults(_GOOD[name]) == []
    assert faults(replace(_GOOD[name], sass=None)) == []


@pytest.mark.parametrize("name", ["dense", "sparse", "attention", "head"])
def test_a_spill_is_a_fault(name: str) -> None:
    assert faults(replace(_GOOD[name], spill_bytes=4)) == ["spills 4 bytes"]


@pytest.mark.parametrize(
    ("name", "instructions", "fault"),
    [
        ("dense", replace(_DENSE, weights_128=0), "128-bit loads of weights"),
        ("dense", _SPARSE, "dense tensor core"),
        ("sparse", _DENSE, "sparse tensor core"),
        ("sparse", replace(_SPARSE, tensor=1), "sparse tensor core"),
        ("many", replace(_DENSE, tensor=0), "dense tensor core"),
        ("attention", replace(_DENSE, loads_128=0), "128-bit loads"),
        ("attention", replace(_DENSE, tensor=0), "dense tensor core"),
        ("head", replace(_HEAD, weights_128=0), "128-bit loads of weights"),
    ],
)
def test_slow_instructions_are_a_fault(name: str, instructions: sass.Instructions, fault: str) -> None:
    found = faults(replace(_GOOD[name], sass=instructions))
    assert any(fault in one for one in found), found
