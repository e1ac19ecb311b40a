"""A server that cannot start says why: a line of its log, before it listens where that is possible."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.store import save_catalog

SECRET = "open-sesame"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a catalog and no model, but for a file that only looks like one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIDTRIE_HOME", str(tmp_path))
        save_catalog(Catalog("topics", [Segment("s", "Food", ("Food",))]), "test")
    (tmp_path / "model.gguf").write_bytes(b"no model")
    return tmp_path


def serve(home: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a server that ends by itself."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bidtrie",
            "serve",
            "--host",
            "127.0.0.1",
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            *arguments,
        ],
        env=os.environ | {"BIDTRIE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def events(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def gguf(home: Path) -> tuple[str, str]:
    return "--model", str(home / "model.gguf")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "none"), "none: no such file, folder or fetched model"),
        (("--model", "smollm2-135m"), "`bidtrie model fetch smollm2-135m` gets it"),
        (("--levels", "none"), "none: no such file, folder or fetched model"),
        (("--catalogs", "none"), "no catalog 'none' in"),
        (("--catalogs", "topics,none"), "(there: topics)"),
        (("--cache-redis-url", f"http://user:{SECRET}@localhost"), "cache_redis_url: expected redis://"),
    ],
)
def test_what_is_not_there_is_told_before_listening(
    home: Path, arguments: tuple[str, ...], reason: str
) -> None:
    code, log = serve(home, *gguf(home), *arguments)
    (event,) = events(log)
    assert code == 1
    assert (event["level"], event["event"]) == ("error", "cannot start")
    assert reason in event["reason"]
    assert SECRET not in log


def test_without_a_catalog_the_command_that_makes_one_is_told(home: Path) -> None:
    shutil.rmtree(home / "catalogs" / "topics")
    code, log = serve(home, *gguf(home))
    (event,) = events(log)
    assert code == 1
    assert "bidtrie catalog build iab-content" in event["reason"]


def test_what_only_loading_tells_is_the_last_line_of_the_log(home: Path) -> None:
    code, log = serve(home, *gguf(home))
    first, *_, last = events(log)
    assert code == 1
    assert first["event"] == "listening"
    assert (last["level"], last["event"]) == ("error", "cannot start")
    assert "model.gguf" in last["reason"]


@pytest.mark.parametrize("setting", ["grpc_port", "http_port"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_is_named_with_its_flag(home: Path, setting: str, host: str) -> None:
    flag = f"--{setting.replace('_', '-')}"
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        code, log = serve(home, *gguf(home), "--host", host, flag, str(port))
    # Each line is JSON: gRPC's own complaint is not among them.
    (event,) = (each for each in events(log) if each["level"] == "error")
    assert code == 1
    assert event["reason"] == (
        f"{setting}: cannot listen on {host}:{port}: Address already in use; "
        f"choose another port with {flag} (0 picks a free one)"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_told(home: Path, host: str) -> None:
    code, log = serve(home, *gguf(home), "--host", host)
    (event,) = (each for each in events(log) if each["level"] == "error")
    assert code == 1
    assert f"cannot listen on {host}:0: " in event["reason"]
    assert "--host" in event["reason"]


def test_without_the_redis_library_the_extra_is_named(home: Path) -> None:
    hidden = home / "hidden" / "redis"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hidden.parent))
        code, log = serve(home, *gguf(home), "--cache-redis-url", "redis://localhost")
    (event,) = events(log)
    assert code == 1
    assert event["reason"] == 'cache_redis_url: needs the redis library: pip install "bidtrie[redis]"'


def test_wrong_settings_are_plain_text(home: Path) -> None:
    assert serve(home, "--kv-slots", "1") == (
        2,
        "bidtrie: --kv-slots: Input should be greater than or equal to 256\n",
    )
