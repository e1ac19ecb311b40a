"""`bidtrie load` as a user runs it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bidtrie.cli import main
from bidtrie.errors import InvalidInput
from bidtrie.figure import check_plot
from bidtrie.load.plot import write_plot
from load.test_ghz import report
from load.test_statistics import random_records
from server.process import ServerProcess, fake_server

#: Nothing listens there: what is refused must be refused before a connection is tried.
NOWHERE = ("--target", "127.0.0.1:1")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fake_server() as running:
        running.event("ready")
        yield running


class Command:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["bidtrie", "load", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = self._capsys.readouterr()
        code = end.value.code
        return code if isinstance(code, int) else 0, captured.out, captured.err


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


RUN = ("--rps", "200", "--total", "40", "--timeout-ms", "60000")


def test_json_output_and_plot(load: Command, server: ServerProcess, tmp_path: Path) -> None:
    file, plot = tmp_path / "report.json", tmp_path / "plot.png"
    code, out, err = load(
        "--target", server.grpc_address, *RUN, "--json", "--output", str(file), "--plot", str(plot)
    )
    assert (code, err) == (0, "")
    printed: dict[str, Any] = json.loads(out)
    assert printed["count"] == 40
    assert printed["bidtrie"]["good"] == 40
    assert json.loads(file.read_text()) == printed
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert {each.name for each in tmp_path.iterdir()} == {"report.json", "plot.png"}


def test_the_summary(load: Command, server: ServerProcess) -> None:
    code, out, _ = load("--target", server.grpc_address, *RUN, "--seed", "7")
    assert code == 0
    assert "40 requests" in out
    assert "seed 7" in out
    assert "OK" in out
    assert "source llm" in out
    assert "sent after the intended time" in out


def test_refusals_of_the_server_are_listed(load: Command, server: ServerProcess) -> None:
    code, out, _ = load("--target", server.grpc_address, *RUN, "--catalog", "unheard-of")
    assert code == 0
    assert "INVALID_ARGUMENT" in out
    assert "40 x catalog: 'unheard-of' is not loaded" in out.replace("\n", " ")


def test_texts(load: Command, server: ServerProcess) -> None:
    code, out, _ = load("--target", server.grpc_address, *RUN, "--call", "generate", "--json")
    assert code == 0
    assert json.loads(out)["statusCodeDistribution"] == {"OK": 40}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rps", "0"), "bidtrie: --rps: 0, expected 0.001 to 100,000\n"),
        (
            ("--load-schedule", "line", "--load-start", "9", "--load-step", "-1"),
            "bidtrie: --load-end: is required where the rate falls\n",
        ),
        (
            ("--load-schedule", "line", "--load-start", "9", "--load-step", "1", "--rps", "5"),
            "bidtrie: --rps: is for --load-schedule const; line has --load-start\n",
        ),
        (("--pages", "/nonexistent.tsv"), "/nonexistent.tsv: cannot be read: No such file or directory\n"),
        (("--output", "/nonexistent/report.json"), "--output: /nonexistent/report.json cannot be written\n"),
        (("--plot", "/nonexistent/plot.png"), "--plot: /nonexistent/plot.png cannot be written\n"),
        (("--total", "6000000"), "bidtrie: --total: 6,000,000, expected 1 to 5,000,000\n"),
        (
            ("--details",),
            "bidtrie: --details: says what the JSON holds, expected beside --json or --output\n",
        ),
        (("--priority", "bid"), "bidtrie: --priority: is for --call generate only\n"),
        (("--plot", "plot.gif"), "--plot: plot.gif, expected a name that ends in .png or .svg\n"),
        ((), "bidtrie: 127.0.0.1:1: no server can be reached there\n"),
    ],
)
def test_errors_are_one_line(load: Command, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = load(*NOWHERE, *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(message)
    assert err.count("\n") == 1


def test_without_matplotlib_a_plot_is_refused_first(
    load: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bidtrie.figure.find_spec", lambda name: None)
    code, _, err = load(*NOWHERE, "--plot", str(tmp_path / "plot.png"))
    assert code == 2
    assert err == 'bidtrie: --plot: needs matplotlib: pip install "bidtrie[plots]"\n'


def test_svg_plots_show_every_outcome(tmp_path: Path) -> None:
    file = tmp_path / "plot.svg"
    write_plot(report(random_records(0), tmax_ms=50), file)
    drawn = file.read_text()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    # Text is drawn as paths, and stands beside them as a comment.
    for text in (
        "in time",
        "OK, but late",
        "rejected",
        "deadline exceeded",
        "dropped by the generator",
        "budget, 50 ms",
    ):
        assert f"<!-- {text} -->" in drawn
    write_plot(report(random_records(0, 1)), tmp_path / "one.png")
    assert {each.name for each in tmp_path.iterdir()} == {"plot.svg", "one.png"}


def test_the_command_line_starts_without_grpc_and_numpy() -> None:
    heavy = "{'grpc', 'numpy', 'matplotlib', 'rich.table'} & set(sys.modules)"
    code = f"import sys, bidtrie.cli.load, bidtrie.load; print({heavy} or 'light')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "light\n"


def test_plots_have_two_formats() -> None:
    check_plot(Path("a.PNG"))
    with pytest.raises(InvalidInput, match=r"expected a name that ends in \.png or \.svg"):
        check_plot(Path("a.pdf"))


def test_details_are_in_the_json(load: Command, server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, out, _ = load("--target", server.grpc_address, *RUN, "--details", "--output", str(file))
    assert code == 0
    assert "40 requests" in out
    assert len(json.loads(file.read_text())["details"]) == 40
