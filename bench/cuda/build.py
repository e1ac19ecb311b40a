"""Compiles the CUDA kernels, and says what each of them takes; equal sources are compiled once."""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from bidtrie.errors import BidtrieError

from bench.cuda import ptxas, sass
from bench.cuda.occupancy import LIMITS, resident_warps

ROOT = Path(__file__).parents[2]
SOURCES = tuple(sorted((ROOT / "kernels/cuda").glob("*.cu")))
#: The language and what it optimizes as the build has it (kernels/cuda/CMakeLists.txt).
FLAGS = (
    *("--expt-relaxed-constexpr", "-std=c++20", "-O3", "-Werror", "all-warnings"),
    *("-Ikernels", "-Ikernels/include", "-Ikernels/cuda"),
)
_CACHE = ROOT / "build/cuda"
#: What makes rows of what the tools print.
_READERS = [Path(__file__).with_name(f"{name}.py") for name in ("build", "occupancy", "ptxas", "sass")]


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel of an architecture. `sass` is None where there was no nvdisasm."""

    architecture: int
    file: str
    kernel: str
    threads: int
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    warps: int
    limited_by: str
    sass: sass.Instructions | None

    @property
    def family(self) -> str:
        """The kernel without its template arguments."""
        return self.kernel.partition("<")[0]


@cache
def _version(tool: str) -> str:
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"release \S+, V(\S+)", done.stdout)
    if not found:
        raise BidtrieError(f"{tool} --version names no release")
    return found[1]


def nvcc_version() -> str:
    """Of the nvcc on the PATH. Raises BidtrieError if there is none."""
    if shutil.which("nvcc") is None:
        raise BidtrieError("nvcc is not on the PATH: the CUDA toolkit has it")
    return _version("nvcc")


def nvdisasm_version() -> str | None:
    """Of the disassembler; None where there is none."""
    found = sass.find_nvdisasm()
    return _version(str(found)) if found else None


def known_architectures() -> tuple[int, ...]:
    """Those that this nvcc compiles for and whose limits are known."""
    done = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True)
    return tuple(one for one in LIMITS if f"sm_{one}" in done.stdout.split())


def _key(source: Path, architecture: int) -> str:
    """A digest of all that a result depends on."""
    headers = [
        file for folder in ("kernels/cuda", "kernels/include") for file in (ROOT / folder).rglob("*.*h")
    ]
    digest = hashlib.sha256(f"{architecture} {FLAGS} {nvcc_version()} {nvdisasm_version()}".encode())
    for file in [source, *sorted(headers), *_READERS]:
        digest.update(f"\0{file}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def compile_file(source: Path, architecture: int) -> list[Row]:
    """The kernels of a file. Raises BidtrieError with what nvcc says if it does not compile without a warning."""
    name = f"sm_{architecture}-{source.stem}-"
    cached = _CACHE / f"{name}{_key(source, architecture)}.json"
    if cached.exists():
        return [_row(values) for values in json.loads(cached.read_text(encoding="utf-8"))]
    rows = _compile(source, architecture)
    _CACHE.mkdir(parents=True, exist_ok=True)
    for old in _CACHE.glob(f"{name}*.json"):
        old.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=_CACHE, suffix=".new", delete=False, encoding="utf-8") as file:
        json.dump([asdict(row) for row in rows], file)
    Path(file.name).replace(cached)
    return rows


def _row(values: dict[str, object]) -> Row:
    instructions = values.pop("sass")
    counted = sass.Instructions(**instructions) if isinstance(instructions, dict) else None
    return Row(**values, sass=counted)  # type: ignore[arg-type]


def _compile(source: Path, architecture: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        command = ["nvcc", *FLAGS, "-Xptxas", "-v", f"-arch=sm_{architecture}", "-c", "--keep"]
        command += ["--keep-dir", folder, "-o", str(kept / "object.o"), str(source)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        log = done.stdout + done.stderr
        if done.returncode:
            raise BidtrieError(f"{source.name} does not compile for sm_{architecture}:\n{log[-3000:]}")
        threads = ptxas.block_threads((kept / f"{source.stem}.ptx").read_text(encoding="utf-8"))
        usages = ptxas.parse(log)
        instructions: dict[str, sass.Instructions] | None = None
        if usages and (nvdisasm := sass.find_nvdisasm()):
            cubin = kept / f"{source.stem}.sm_{architecture}.cubin"
            instructions = sass.count(sass.disassemble(nvdisasm, cubin))
    rows = []
    for usage, name in zip(usages, ptxas.demangled([usage.symbol for usage in usages]), strict=True):
        if usage.symbol not in threads:
            raise BidtrieError(f"{ptxas.short_name(name)} of {source.name} has no launch bounds")
        block = threads[usage.symbol]
        warps, limit = resident_warps(LIMITS[architecture], block, usage.registers, usage.shared_bytes)
        rows.append(
            Row(
                architecture=architecture,
                file=source.name,
                kernel=ptxas.short_name(name),
                threads=block,
                registers=usage.registers,
                spill_bytes=usage.spill_bytes,
                stack_bytes=usage.stack_bytes,
                shared_bytes=usage.shared_bytes,
                warps=warps,
                limited_by=limit,
                sass=None if instructions is None else instructions[usage.symbol],
            )
        )
    return sorted(rows, key=lambda row: row.kernel)


def compile_all(units: Sequence[tuple[Path, int]], together: int = 2) -> Iterator[list[Row]]:
    """Compiles (source, architecture) pairs, `together` at a time; results come as they are ready."""
    with ThreadPoolExecutor(together) as pool:
        futures = [pool.submit(compile_file, *unit) for unit in units]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def faults(row: Row) -> list[str]:
    """What the kernel should not do: spill, load in small pieces, multiply without the tensor cores.

    `linear_many` may spill: its launch bounds give it two blocks a multiprocessor at the price of a few bytes.
    Sparse matrices' codes come in pieces of 64 or 32 bits.
    """
    found = []
    if row.family != "linear_many" and row.spill_bytes:
        found.append(f"spills {row.spill_bytes} bytes")
    if row.sass is None:
        return found
    has, attends = row.sass, row.family == "tree_attention_kernel"
    if row.family == "linear_few" and "dense" not in row.kernel:
        if not has.tensor_sparse or has.tensor:
            found.append("does not multiply by sparse tensor core instructions alone")
        return found
    if (attends or row.family in ("linear_few", "linear_many")) and (not has.tensor or has.tensor_sparse):
        found.append("does not multiply by dense tensor core instructions alone")
    if attends and not has.loads_128:
        found.append("has no 128-bit loads")
    if row.family in ("linear_few", "linear_many", "candidate_logits") and not has.weights_128:
        found.append("has no 128-bit loads of weights")
    return found
