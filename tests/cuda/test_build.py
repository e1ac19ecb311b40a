"""Every CUDA kernel compiles without a warning and keeps its registers, and where nvdisasm is, has the instructions
that make it fast. `python -m bench.cuda_build` does the same for all files and architectures."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
from bidtrie.errors import BidtrieError, InvalidInput

from bench import cuda_build
from bench.cuda import build
from bench.cuda.occupancy import LIMITS, REGISTERS, RESERVED_BYTES, resident_warps
from bench.cuda.page import page

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")

# The linears of one type of activations take as long as all else together: on some architectures only.
_UNITS = [
    *(
        (architecture, name)
        for architecture in LIMITS
        for name in ("candidate_head", "library", "tree_attention")
    ),
    *((architecture, "linear_bfloat16") for architecture in (80, 90)),
    (90, "linear_float16"),
]


def _source(name: str) -> Path:
    return next(source for source in build.SOURCES if source.stem == name)


def test_no_source_is_forgotten() -> None:
    cmake = (build.ROOT / "kernels/cuda/CMakeLists.txt").read_text(encoding="utf-8")
    assert [source.name for source in build.SOURCES] == [
        line.strip().rstrip(")") for line in cmake.splitlines() if line.strip().rstrip(")").endswith(".cu")
    ]
    listed = next(line for line in cmake.splitlines() if "set(CMAKE_CUDA_ARCHITECTURES" in line)
    assert [int(word) for word in listed.strip(" )").split() if word.isdecimal()] == list(LIMITS)


@pytest.mark.parametrize(("architecture", "name"), _UNITS)
def test_kernels_compile_well(architecture: int, name: str) -> None:
    if architecture not in build.known_architectures():
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    rows = build.compile_file(_source(name), architecture)
    expected = {
        "candidate_head": 3,
        "library": 0,
        "linear_bfloat16": 60,
        "linear_float16": 60,
        "tree_attention": 4,
    }
    assert len(rows) == expected[name]
    assert [(row.kernel, fault) for row in rows for fault in build.faults(row)] == []
    assert all(row.warps >= 8 for row in rows)


_SPILLING = """\
namespace bidtrie::cuda {
__global__ void __launch_bounds__(1024, 2) linear_few(float* values) {
  float held[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) held[i] = values[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) values[i * 1024 + threadIdx.x] = held[63 - i] * held[i];
}
}  // namespace bidtrie::cuda
"""


def test_a_kernel_that_spills_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_CACHE", tmp_path / "cache")
    source = tmp_path / "spilling.cu"
    source.write_text(_SPILLING, encoding="utf-8")
    (row,) = build.compile_file(source, 80)
    assert (row.kernel, row.threads, row.warps) == ("linear_few", 1024, 64)
    assert f"spills {row.spill_bytes} bytes" in build.faults(row)

    def refuse(source: Path, architecture: int) -> list[build.Row]:
        raise AssertionError("compiled again")

    with monkeypatch.context() as patched:
        patched.setattr(build, "_compile", refuse)
        assert build.compile_file(source, 80) == [row]  # equal sources are compiled once
        source.write_text(_SPILLING + "// changed\n", encoding="utf-8")
        with pytest.raises(AssertionError, match="compiled again"):
            build.compile_file(source, 80)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("__global__ void __launch_bounds__(32) kernel(int* p) { int unused; *p = 1; }", "unused"),
        ("__global__ void kernel(int* p) { *p = 1; }", "kernel of wrong.cu has no launch bounds"),
    ],
)
def test_a_warning_or_no_launch_bounds_are_an_error(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_CACHE", tmp_path / "cache")
    source = tmp_path / "wrong.cu"
    source.write_text(code, encoding="utf-8")
    with pytest.raises(BidtrieError, match=message):
        build.compile_file(source, 80)


_OCCUPANCY = """\
#include <stdio.h>
#include <cuda_occupancy.h>
// Lines of: compute capability; warps, registers and shared memory of a multiprocessor, reserved shared memory;
// threads, registers, shared memory of a kernel. Prints the blocks that fit.
int main() {
  int capability, warps, registers, shared, reserved, threads, used, own;
  while (scanf("%d %d %d %d %d %d %d %d", &capability, &warps, &registers, &shared, &reserved, &threads, &used,
               &own) == 8) {
    cudaOccDeviceProp device;
    device.computeMajor = capability / 10;
    device.computeMinor = capability % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 32 * warps;
    device.regsPerBlock = device.regsPerMultiprocessor = registers;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = shared;
    device.sharedMemPerBlockOptin = shared - reserved;
    device.reservedSharedMemPerBlock = reserved;
    device.numSms = 100;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = used;
    kernel.sharedSizeBytes = own;
    cudaOccDeviceState state;
    cudaOccResult result;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0)) return 1;
    printf("%d\\n", result.activeBlocksPerMultiprocessor);
  }
}
"""


def test_occupancy_is_as_the_toolkit_computes_it(tmp_path: Path) -> None:
    program, source = tmp_path / "occupancy", tmp_path / "occupancy.cpp"
    source.write_text(_OCCUPANCY, encoding="utf-8")
    command = ["nvcc", "-cudart", "none", "-o", str(program), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    kernels = list(
        itertools.product(LIMITS, (32, 96, 128, 256, 512), range(16, 256), (0, 48, 4112, 16912, 36880, 48128))
    )
    lines = [
        f"{one} {LIMITS[one].warps} {REGISTERS} {LIMITS[one].shared_bytes} {RESERVED_BYTES} {threads} {used} {own}"
        for one, threads, used, own in kernels
    ]
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    expected = [int(line) for line in done.stdout.splitlines()]

    def blocks(less: int) -> list[int]:
        found = []
        for one, threads, used, own in kernels:
            warps, _ = resident_warps(LIMITS[one], threads, used, max(0, own - less))
            found.append(warps // (threads // 32))
        return found

    assert blocks(0) == expected
    assert blocks(RESERVED_BYTES) != expected  # what the system takes is seen


_SPILLS = [
    build.Row(90, "a.cu", "linear_many<fp16, int4, once>", 256, 128, 12, 8, 36880, 16, "registers", None),
    build.Row(
        90, "a.cu", "linear_few<fp16, int4, dense, once, 8 nodes>", 256, 80, 4, 8, 0, 24, "registers", None
    ),
]


def test_the_page_shows_spills_and_wants_its_architecture() -> None:
    assert "| sm_90 | `linear_many<fp16, int4, once>` | 128 | 12 | 8 |" in page(_SPILLS)
    assert "## Faults\n- sm_90 `linear_few<fp16, int4, dense, once, 8 nodes>` spills 4 bytes\n\n" in page(
        _SPILLS
    )
    assert "## Faults\nNone.\n" in page(_SPILLS[:1])
    with pytest.raises(InvalidInput, match="--architectures: expected 90"):
        page([])


def test_the_benchmark_sums_spills_and_names_what_failed() -> None:
    figures = cuda_build.figures(_SPILLS, [90])
    assert (figures["spill_bytes"], figures["spill_bytes_many"], figures["kernels"]) == (4, 12, 2)
    assert figures["failed"] == ["sm_90 linear_few<fp16, int4, dense, once, 8 nodes> spills 4 bytes"]


def test_an_unknown_architecture_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cuda_build", "--architectures", "90,75,x"])
    assert cuda_build.main() == 2
    assert "--architectures: 75, x is unknown, expected some of 80, " in capsys.readouterr().err
