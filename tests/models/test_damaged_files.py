"""Files that are cut off, bent or made up: each loads, or is refused with an error that names it; nothing else."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models.gguf_file import read_gguf
from bidtrie.models.load import load_checkpoint
from bidtrie.models.safetensors_file import read_safetensors
from gguf import GGMLQuantizationType, GGUFReader
from models.damage import bend, load_or_refuse
from models.tiny_files import write_gguf
from reference.tiny_models import save_tiny_model

ROUNDS = 250


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, int]:
    """A Hugging Face folder, a GGUF file's bytes, and where the tensors' data begin in it."""
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny_model("llama", folder)
    path = folder.parent / "tiny.gguf"
    kinds = {"gate_proj": GGMLQuantizationType.Q4_1, "embed_tokens": GGMLQuantizationType.Q8_0}
    write_gguf(path, model, kinds)
    return folder, path.read_bytes(), int(GGUFReader(path).data_offset)


def test_gguf_bent(tiny: tuple[Path, bytes, int], tmp_path: Path) -> None:
    _, content, data = tiny
    rng = np.random.default_rng(1)
    loaded = []
    for i in range(ROUNDS):
        path = tmp_path / f"bent-{i}.gguf"
        # The header is where most can go wrong; every fifth file is bent anywhere.
        path.write_bytes(bend(content, rng, 0, len(content) if i % 5 == 0 else data))
        loaded.append(load_or_refuse(path, path.name))
        path.unlink()
    assert 0 < sum(loaded) < ROUNDS


def test_gguf_cut_off(tiny: tuple[Path, bytes, int], tmp_path: Path) -> None:
    _, content, data = tiny
    rng = np.random.default_rng(2)
    for size in [*range(40), data - 1, data, len(content) - 1, *rng.integers(0, len(content), 60).tolist()]:
        path = tmp_path / "cut.gguf"
        path.write_bytes(content[:size])
        assert not load_or_refuse(path, "cut.gguf")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_hugging_face_bent(tiny: tuple[Path, bytes, int], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny[0], tmp_path / "model"))
    content = (folder / name).read_bytes()
    last = 8 + int.from_bytes(content[:8], "little") if name == "model.safetensors" else len(content)
    assert load_or_refuse(folder, str(folder))
    rng = np.random.default_rng(3)
    loaded = []
    for i in range(ROUNDS):
        (folder / name).write_bytes(bend(content, rng, 0, len(content) if i % 5 == 0 else last))
        loaded.append(load_or_refuse(folder, str(folder)))
    assert sum(loaded) < ROUNDS


def test_safetensors_cut_off(tiny: tuple[Path, bytes, int], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny[0], tmp_path / "model"))
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for size in [*range(20), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        assert not load_or_refuse(folder, "model.safetensors")
    path.write_bytes(content + b"\0")
    assert not load_or_refuse(folder, "model.safetensors")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(tensors: int = 0, entries: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def short(value: bytes | str) -> str:
    """Test ids without the bytes."""
    return value if isinstance(value, str) else ""


U32 = struct.Struct("<I").pack
U64 = struct.Struct("<Q").pack


def tensor(*, dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, name: str = "t") -> bytes:
    return text(name) + U32(len(dims)) + b"".join(map(U64, dims)) + U32(kind) + U64(offset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"GG", "is not a GGUF file"),
        (b"\x80\x02}q\x00X", "is not a GGUF file"),
        (gguf(version=1), "version 1 is not supported"),
        (gguf(version=3 << 24), "expected 2 or 3"),
        (gguf(tensors=1 << 63), "claims 9223372036854775808 tensors"),
        (gguf(entries=1 << 40), "claims 1099511627776 metadata entries"),
        (gguf(entries=1), "cut off in a metadata key"),
        (gguf(entries=1, body=U64(1 << 60)), "cut off in a metadata key: 1152921504606846976 bytes wanted"),
        (gguf(entries=1, body=text("k") + U32(99)), "metadata k has the unknown value type 99"),
        (gguf(entries=1, body=U64(2) + b"\xff\xfe" + U32(4) + U32(1)), "a metadata key is not UTF-8"),
        (gguf(entries=2, body=(text("k") + U32(4) + U32(1)) * 2), "metadata key k appears twice"),
        (
            gguf(entries=1, body=text("k") + U32(9) + U32(8) + U64(1 << 50)),
            "metadata k claims 1125899906842624 elements",
        ),
        (gguf(entries=1, body=text("k") + U32(9) + U32(4) + U64(1 << 22)), "cut off in metadata k"),
        (gguf(entries=1, body=text("k") + U32(9) + U32(9) + U64(1)), "list of the unsupported value type 9"),
        (gguf(entries=1, body=text("general.alignment") + U32(4) + U32(0)), "expected a power of two"),
        (gguf(entries=1, body=text("general.alignment") + U32(4) + U32(48)), "expected a power of two"),
        (gguf(entries=1, body=text("general.alignment") + U32(8) + text("32")), "expected a power of two"),
        (gguf(tensors=1, body=tensor(dims=())), "has 0 dimensions"),
        (gguf(tensors=1, body=text("t") + U32(1 << 30)), "has 1073741824 dimensions"),
        (gguf(tensors=1, body=tensor(dims=(0,))), r"has shape \[0\]"),
        (gguf(tensors=1, body=tensor(dims=(33,), kind=3)), "expected rows of a multiple of 32 elements"),
        (gguf(tensors=1, body=tensor(dims=(1 << 63, 1 << 63))), "lies outside the file"),
        (gguf(tensors=1, body=tensor(offset=1 << 62)), "lies outside the file"),
        (gguf(tensors=1, body=tensor(offset=7)), "begins at offset 7, expected a multiple of 32"),
        (gguf(tensors=1, body=tensor(kind=4000)), "has the unknown type 4000"),
        (gguf(tensors=2, body=tensor() * 2 + bytes(64)), "tensor t appears twice"),
        (gguf(tensors=2, body=tensor() + tensor(name="u\n") + bytes(64)), r"tensors t and 'u\\n' overlap"),
        (gguf(body=bytes(64)), "general.architecture is missing"),
    ],
    ids=short,
)
def test_made_up_gguf(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "made-up.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(path)
    assert "made-up.gguf" in str(caught.value)


def header(entries: Any, data: bytes = bytes(16)) -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"1234567", "cut off: 7 bytes"),
        (struct.pack("<Q", 1 << 63), "claims a header of 9223372036854775808 bytes"),
        (struct.pack("<Q", 100) + b"{}", "claims a header of 100 bytes"),
        (header(b"\xff\xff"), "the header is not JSON"),
        (header(b"[" * 100_000), "the header is not JSON"),
        (header(b"9" * 10_000), "the header is not JSON"),
        (header([]), "the header is not a JSON object"),
        (header({"t": 1}), "tensor t: the header's entry is not an object"),
        (
            header({"t": entry(dtype="F8_E4M3")}),
            "tensor t has the type 'F8_E4M3', expected one of F32, F16, BF16",
        ),
        (header({"t": entry(dtype=["F32"])}), "expected one of F32"),
        (header({"t": entry(shape=4)}), "tensor t: shape is not a list of sizes"),
        (header({"t": entry(shape=[-4])}), "shape is not a list of sizes"),
        (header({"t": entry(shape=[True])}), "shape is not a list of sizes"),
        (header({"t": entry(shape=[1e3])}), "shape is not a list of sizes"),
        (header({"t": entry(shape=[1 << 61, 1 << 61])}), "takes 16 bytes, expected"),
        (header({"t": entry(shape=[5])}), "takes 16 bytes, expected 20"),
        (header({"t": entry(data_offsets=[0])}), "data_offsets is not a pair of offsets"),
        (header({"t": entry(data_offsets=[16, 0])}), "lies outside the file: bytes 16 to 0"),
        (header({"t": entry(data_offsets=[0, 1 << 60])}), "lies outside the file"),
        (header({"t": entry()}, bytes(20)), "the tensors end at byte 16 of 20"),
        (header({"t": entry(data_offsets=[4, 20])}, bytes(20)), "tensor t begins at byte 4, expected 0"),
        (header({"t": entry(), "u\n": entry()}), r"tensor 'u\\n' begins at byte 0, expected 16"),
        (header({str(i): entry() for i in range(70_000)}), "claims 70000 tensors, expected at most 65536"),
    ],
    ids=short,
)
def test_made_up_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "made-up.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_safetensors(path)
    assert "made-up.safetensors" in str(caught.value)


def test_well_formed_containers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "fine"
    path.write_bytes(
        header({"t": entry(), "__metadata__": {"format": "pt"}}, np.arange(4, dtype="<f4").tobytes())
    )
    np.testing.assert_array_equal(read_safetensors(path)[0]["t"].to_float32(), [0, 1, 2, 3])
    body = gguf(tensors=1, body=tensor())
    path.write_bytes(body + bytes(-len(body) % 32) + np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(read_gguf(path).tensors["t"].data.view("<f4"), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (lambda folder: folder / "nothing.gguf", "no such file, folder or fetched model"),
        (lambda folder: folder, r"config.json: is missing"),
        (lambda folder: "smollm2-13b", "smollm2-13b: no such file, folder or fetched model"),
        (lambda folder: "a\0b", r"'a\\x00b'"),
        (lambda folder: "x" * 5000, "x"),
        (lambda folder: "", "config.json: is missing|no such file"),
        (lambda folder: Path("/dev/null"), "no such file"),
    ],
)
def test_places_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], Path | str], message: str
) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(place(tmp_path))


def test_fetched_models_are_found_by_name(
    tiny: tuple[Path, bytes, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDTRIE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="`bidtrie model fetch smollm2-135m` gets it"):
        load_checkpoint("smollm2-135m")
    folder, content, _ = tiny
    shutil.copytree(folder, tmp_path / "models" / "tiny-hf")
    (tmp_path / "models" / "tiny-gguf").mkdir()
    (tmp_path / "models" / "tiny-gguf" / "some file.gguf").write_bytes(content)
    assert load_checkpoint("tiny-hf").name == "tiny-hf"
    assert load_checkpoint("tiny-gguf").name == "tiny-gguf"
    (tmp_path / "models" / "tiny-gguf" / "another.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"holds 2 \.gguf files, expected one"):
        load_checkpoint("tiny-gguf")
    for name in ("../models/tiny-hf", ".", ".."):
        monkeypatch.chdir(tmp_path / "models" / "tiny-gguf")
        with pytest.raises(ModelError):
            load_checkpoint(name)
