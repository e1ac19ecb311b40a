"""An independent client: @grpc/grpc-js with our .proto files, run by Node's own test runner."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from bidtrie.server.serve import Ports

HERE = Path(__file__).parent
NODE = HERE / "node"
PROTOS = HERE.parents[1] / "protos"


def run(command: list[str], seconds: float, **environment: str) -> str:
    """Run a command in the client's folder; its output, also where it fails."""
    done = subprocess.run(
        command,
        cwd=NODE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def node() -> str:
    """The `node` program, with the client's packages installed from its lock file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        reason = "node and npm (20 or later) are not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # npm writes its own copy of the lock file last: one that is younger than ours means that all is installed.
    installed = NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], 300)
    return node


def test_the_node_client(node: str, live_server: Ports) -> None:
    output = run(
        [node, "--test", "--test-reporter=tap", "client.test.js"],
        300,
        BIDTRIE_ADDRESS=f"127.0.0.1:{live_server.grpc}",
        BIDTRIE_PROTOS=str(PROTOS),
    )
    # A runner that finds no tests succeeds as well.
    assert "# pass 11" in output, output
    assert "# fail 0" in output, output
