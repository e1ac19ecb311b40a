"""What the README says that a command prints, against the default model."""

import re
import shlex
from pathlib import Path

from bidtrie.serving.own_server import Ports
from e2e.test_commands import bidtrie

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_example_of_a_creative_is_what_the_default_model_writes(live_server: Ports) -> None:
    (command,) = re.findall(r"^bidtrie (creative .*)$", README, flags=re.MULTILINE)
    (text, characters) = re.findall(r"The last one prints `([^`]+)`, (\d+) characters", README)[0]
    done = bidtrie(*shlex.split(command), "--target", f"127.0.0.1:{live_server.grpc}")
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if "headline-1" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][2:] == [characters, text]
    assert "from the cache" not in done.stdout
    again = bidtrie(*shlex.split(command), "--target", f"127.0.0.1:{live_server.grpc}")
    assert text in again.stdout
    assert "from the cache" in again.stdout
