"""tests/install_tools.sh where it must not install anything."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "install_tools.sh"
TOOLS = ("prometheus", "promtool", "redis-server")


def run(folder: Path, **commands: str) -> "subprocess.CompletedProcess[str]":
    """The script with nothing on its PATH but these commands, each a line of shell."""
    for name, line in commands.items():
        command = folder / name.replace("_", "-")
        command.write_text(f"#!/bin/sh\n{line}\n")
        command.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", SCRIPT], env={"PATH": str(folder)}, capture_output=True, text=True, check=False
    )


def test_nothing_happens_where_the_tools_are(tmp_path: Path) -> None:
    tools = {name.replace("-", "_"): "exit 9" for name in TOOLS}
    done = run(tmp_path, **tools, id="exit 9", apt_get="exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_it_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, promtool="exit 9", id="echo 1000", apt_get="exit 9")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith(": prometheus redis-server")


def test_only_what_is_missing_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, promtool="exit 9", prometheus="exit 9", id="echo 0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith(": redis-server")
