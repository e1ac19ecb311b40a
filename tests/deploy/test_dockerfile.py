"""The Dockerfile, without Docker: linted, and checked against the tree that it copies from."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bidtrie.settings import Settings
from deploy.dockerfile import Ignored, Stage, final_stages, read_dockerfile

ROOT = Path(__file__).parents[2]
HADOLINT = Path(sys.executable).parent / "hadolint"
STAGES = read_dockerfile(ROOT / "Dockerfile")
FINAL = final_stages(STAGES)
#: What `pip wheel .` reads: the build system's files, the sources, and what pyproject.toml names.
NEEDED = ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE", "kernels", "protos", "service")

each_final = pytest.mark.parametrize("stage", FINAL, ids=lambda stage: stage.name)


def copied_from_context(stage: Stage) -> list[str]:
    sources = []
    for copy in stage.all("COPY"):
        if not any(flag.startswith("--from=") for flag in copy.flags):
            sources += copy.rest.split()[:-1]
    return sources


def lint(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HADOLINT, "--no-color", file], capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    done = lint(ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_sees_faults(tmp_path: Path) -> None:
    faulty = tmp_path / "Dockerfile"
    faulty.write_text('FROM debian\nRUN cd /tmp\nCMD ["sh"]\n')
    done = lint(faulty)
    assert done.returncode == 1
    assert "DL3006" in done.stdout
    assert "DL3003" in done.stdout


def test_the_targets_are_cpu_and_gpu_and_cpu_is_the_default() -> None:
    assert {stage.name for stage in FINAL} == {"cpu", "gpu"}
    assert STAGES[-1].name == "cpu"


@each_final
def test_images_run_as_a_numbered_user_that_is_not_root(stage: Stage) -> None:
    # Kubernetes can check runAsNonRoot only where the user is a number.
    user, group = stage.argument("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    after = stage.instructions[stage.instructions.index(stage.all("USER")[-1]) :]
    assert not [each for each in after if each.name in ("RUN", "COPY", "ADD")]


@each_final
def test_images_say_how_they_are_reached_stopped_and_checked(stage: Stage) -> None:
    ports = {Settings().grpc_port, Settings().http_port}
    assert {int(port) for port in stage.argument("EXPOSE").split()} == ports
    assert stage.argument("STOPSIGNAL") == "SIGTERM"
    check = stage.argument("HEALTHCHECK")
    assert str(Settings().http_port) in check
    assert "/health/ready" in check


@each_final
def test_images_have_no_build_tools(stage: Stage) -> None:
    """But for the C compiler that Triton needs where it runs."""
    runs = " ".join(each.rest for each in stage.all("RUN")).replace(
        "gcc libc6-dev" if stage.name == "gpu" else "", ""
    )
    for tool in ("g++", "gcc", "build-essential", "cmake", "ninja", "nvcc", "-devel"):
        assert tool not in runs
        assert tool not in stage.base
    assert not copied_from_context(stage)


def test_the_images_differ_in_what_a_gpu_needs() -> None:
    cpu, gpu = FINAL if FINAL[0].name == "cpu" else reversed(FINAL)
    differing = {
        each.name
        for each in [*cpu.instructions, *gpu.instructions]
        if (each in cpu.instructions) != (each in gpu.instructions)
    }
    assert differing == {"RUN", "ENV", "HEALTHCHECK", "CMD"}
    assert cpu.json_argument("CMD") == gpu.json_argument("CMD")[:-2]
    assert gpu.json_argument("CMD")[-2:] == ["--engine", "vllm"]
    ours = cpu.environment()
    assert {name: value for name, value in gpu.environment().items() if name in ours} == ours


@pytest.mark.parametrize(("name", "extras"), [("wheels", {"redis"}), ("gpu-wheels", {"redis", "vllm"})])
def test_what_the_wheels_hold(name: str, extras: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wheels,) = (stage for stage in STAGES if stage.name == name)
    (build,) = (each.rest for each in wheels.all("RUN") if "pip wheel" in each.rest)
    (asked,) = re.findall(r'"\.\[([\w,]+)\]"', build)
    assert set(asked.split(",")) == extras <= set(project["optional-dependencies"])
    assert ("BIDTRIE_CUDA=1" in build) == (name == "gpu-wheels")


def test_every_copied_path_exists_and_reaches_the_build() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    for name in ("wheels", "gpu-wheels"):
        (stage,) = (stage for stage in STAGES if stage.name == name)
        assert sorted(copied_from_context(stage)) == sorted(NEEDED)
    for source in NEEDED:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_every_tracked_source_reaches_the_build() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    generated = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", ".so", ".pyc")
    files = [path for name in NEEDED for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    assert len(files) > 100
    for path in files:
        assert ignored(str(path.relative_to(ROOT))) == path.name.endswith(generated), path


@pytest.mark.parametrize(
    "path", [".git", ".venv/bin/python", "tests/conftest.py", "build/x.o", "docs/kernels.md", "Dockerfile"]
)
def test_nothing_else_reaches_the_build(path: str) -> None:
    assert Ignored((ROOT / ".dockerignore").read_text())(path)


def test_what_a_stage_takes_from_another_comes_before_it() -> None:
    before: set[str] = set()
    for stage in STAGES:
        for instruction in stage.instructions:
            for flag in instruction.flags:
                for part in flag.removeprefix("--mount=").removeprefix("--").split(","):
                    if part.startswith("from="):
                        assert part.removeprefix("from=") in before
        before.add(stage.name)


def test_no_address_is_built_in() -> None:
    for stage in STAGES:
        for run in stage.all("RUN"):
            assert "://" not in run.rest
            assert "index-url" not in run.rest


def test_patterns_of_dockerignore() -> None:
    ignored = Ignored("# comment\n*\n!src\n**/*.so\n!src/keep.so\n**/__pycache__\ndocs/?.md\n")
    expected = {
        "a": True, "src": False, "src/a.py": False, "src/deep/a.so": True, "a.so": True, "src/keep.so": False,
        "src/__pycache__/a": True, "docs/x.md": True,
    }  # fmt: skip
    assert {path: ignored(path) for path in expected} == expected
