"""Compressed models that are cut off, bent or made up: each loads, or is refused with an error that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models.artefact import take_group_tensors
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.load import load_checkpoint
from models.damage import bend, load_or_refuse
from models.tiny_artefacts import sign, write_tiny_artefact
from models.tiny_files import change_json
from reference.tiny_models import random_checkpoint, save_tiny_model
from safetensors.numpy import load_file, save_file

ROUNDS = 150
FILES = (
    "model.safetensors",
    "config.json",
    "compression.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
DOWN = "model.layers.1.mlp.down_proj"
HEAD = "lm_head"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 2:4 with a table, the head with minimums: every array that there is."""
    source = tmp_path_factory.mktemp("source")
    save_tiny_model("llama", source)
    (source / "chat_template.jinja").write_text("{{ a longer template }}")
    out = source.parent / "tiny-artefact"
    layers, head = GroupFormat(4, 32, table=True, pattern="2:4"), GroupFormat(4, 32, minimum=True)
    write_tiny_artefact(out, load_checkpoint(source), layers, head)
    return out


@pytest.fixture
def artefact(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "tiny-artefact"))


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refuse(folder: Path, message: str) -> None:
    """The folder is refused for the reason of `message`, once its hashes are right."""
    sign(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_fixture_is_sound(artefact: Path) -> None:
    assert {path.name for path in artefact.iterdir()} == set(FILES)
    sign(artefact)
    tensors = load_checkpoint(artefact).tensors
    assert {str(tensor.format) for tensor in tensors.values()} == {
        "2:4-int4-table-g32",
        "int4-min-g32",
        "float32",
    }


@pytest.mark.parametrize("name", [name for name in FILES if name != "compression.json"])
def test_any_change_of_a_file_is_noticed(artefact: Path, name: str) -> None:
    """Also one that leaves the file readable: a space in JSON, a bit of a code."""
    content = (artefact / name).read_bytes()
    changed = content + b" " if name != "model.safetensors" else content[:-1] + bytes([content[-1] ^ 1])
    (artefact / name).write_bytes(changed)
    with pytest.raises(ModelError, match=rf"{name}: its SHA-256 is not that in compression.json"):
        load_checkpoint(artefact)
    sign(artefact)
    load_checkpoint(artefact)


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_missing(artefact: Path, name: str) -> None:
    (artefact / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}.*is missing|file {name} is missing|neither {name}"):
        load_checkpoint(artefact)


def test_files_that_came_later(artefact: Path) -> None:
    """One that is read changes the model; one that is not does no harm."""
    (artefact / "README.md").write_text("hello")
    load_checkpoint(artefact)
    (artefact / "chat_template.jinja").unlink()
    sign(artefact, files={path.name: "" for path in artefact.iterdir()})
    record = json.loads((artefact / "compression.json").read_text())
    del record["files"]
    (artefact / "compression.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"config.json: is not part of the model, compression.json does not"):
        load_checkpoint(artefact)


@pytest.mark.parametrize("name", FILES)
def test_cut_off(artefact: Path, name: str) -> None:
    content = (artefact / name).read_bytes().rstrip()
    for size in (0, 1, 9, len(content) // 2, len(content) - 1):
        (artefact / name).write_bytes(content[:size])
        assert not load_or_refuse(artefact, name)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "compression.json"])
def test_bent(artefact: Path, name: str, signed: bool) -> None:
    """With hashes that fit the bent file, what lies behind them is tested, too."""
    content, record = (artefact / name).read_bytes(), (artefact / "compression.json").read_bytes()
    last = 8 + int.from_bytes(content[:8], "little") if name == "model.safetensors" else len(content)
    rng = np.random.default_rng(4)
    loaded = []
    for i in range(ROUNDS):
        (artefact / name).write_bytes(bend(content, rng, 0, len(content) if i % 5 == 0 else last))
        if signed and name != "compression.json":
            (artefact / "compression.json").write_bytes(record)
            sign(artefact)
        loaded.append(load_or_refuse(artefact, str(artefact)))
    assert sum(loaded) < ROUNDS
    if not signed and name != "compression.json":
        assert not any(loaded)


def set_linear(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    """Change one linear's entry in the quantization_config; `...` removes a key."""

    def change(quantization: dict[str, Any]) -> None:
        linear = quantization["linears"].setdefault(name, {})
        for key, value in changes.items():
            linear.pop(key, None) if value is ... else linear.update({key: value})

    return change


INT4 = GroupFormat(4, 32).to_json()
QUANTIZATION_MISTAKES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda q: q.update(quant_method="gptq"), "quantized checkpoints are read as GGUF only"),
    (lambda q: q.update(quant_method=None), "quantized checkpoints are read as GGUF only"),
    (lambda q: q.update(quant_method=["bidtrie"]), "quantized checkpoints are read as GGUF only"),
    (lambda q: q.update(format_version=2), "format_version is 2, expected 1"),
    (lambda q: q.update(format_version="1"), "format_version is '1', expected an integer"),
    (lambda q: q.pop("format_version"), "format_version is missing"),
    (lambda q: q.update(kv_cache="int8"), "the key kv_cache is unknown, expected quant_method"),
    (lambda q: q.update(linears=[]), r"linears is \[\], expected an object"),
    (lambda q: q.pop("linears"), "linears is missing, expected an object"),
    (lambda q: q["linears"].update({"a\nb": 1}), r"linears: 'a\\nb' is 1, expected an object"),
    (set_linear(DOWN, bits=2), rf"linears: {DOWN}: bits is 2, expected 4 or 8"),
    (set_linear(DOWN, bits=10**400), "bits is 1"),
    (set_linear(DOWN, group_size=...), "group_size is missing"),
    (set_linear(DOWN, group_size=20), "group_size is 20"),
    (set_linear(DOWN, minimum=True), "table is True with a minimum"),
    (set_linear(DOWN, symmetric=True), "the key symmetric is unknown"),
    (set_linear("model.norm", **INT4), "model.norm is float32, config.json says int4-g32"),
    (set_linear("mo\0del", **INT4), r"'mo\\x00del' is float32, config.json says int4-g32"),
    (set_linear(DOWN, group_size=64), f"{DOWN} is 2:4-int4-table-g32, config.json says 2:4-int4-table-g64"),
    (lambda q: q["linears"].pop(DOWN), f"{DOWN} is 2:4-int4-table-g32, config.json says float32"),
]


@pytest.mark.parametrize(("change", "message"), QUANTIZATION_MISTAKES)
def test_quantization_mistakes(
    artefact: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    quantization = json.loads((artefact / "config.json").read_text())["quantization_config"]
    change(quantization)
    change_json(artefact / "config.json", quantization_config=quantization)
    refuse(artefact, message)


def agree(folder: Path, name: str, format: GroupFormat | None) -> None:
    """Say in config.json and compression.json alike that a linear is of a format, or float32."""
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    linears = json.loads((folder / "compression.json").read_text())["linears"]
    if format is None:
        del quantization["linears"][name], linears[name]
    else:
        quantization["linears"][name] = format.to_json()
        linears[name] = {"format": str(format), "bits_per_weight": 4.5, "relative_error": 0.1}
    change_json(folder / "config.json", quantization_config=quantization)
    change_json(folder / "compression.json", linears=linears)


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("model.norm", GroupFormat(4, 32), "names model.norm, which is not a linear of this model"),
        (
            "model.layers.2.mlp.up_proj",
            GroupFormat(4, 32),
            "model.layers.2.mlp.up_proj, which is not a linear",
        ),
        ("o\0h", GroupFormat(4, 32), r"names 'o\\x00h', which is not a linear"),
        (DOWN, None, rf"tensor {DOWN}.weight is missing"),
        (
            DOWN,
            GroupFormat(4, 32),
            rf"{DOWN}.weight_packed is U8 \[64, 24\], expected U8 \[64, 48\] for int4-g32",
        ),
        (
            DOWN,
            GroupFormat(4, 16, table=True, pattern="2:4"),
            r"weight_scale is F16 \[64, 3\], expected F16 \[64, 6\]",
        ),
        (DOWN, GroupFormat(4, 32, pattern="2:4"), rf"tensor {DOWN}.weight_table is not part of a Llama"),
        (HEAD, GroupFormat(4, 32), r"tensor lm_head.weight_min is not part of a LlamaForCausalLM"),
        (HEAD, GroupFormat(4, 32, table=True), r"lm_head.weight_table is missing, expected I8 \[16\]"),
    ],
)
def test_formats_that_the_tensors_do_not_have(
    artefact: Path, name: str, format: GroupFormat | None, message: str
) -> None:
    agree(artefact, name, format)
    refuse(artefact, message)


def set_value(name: str, index: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[name].__setitem__(index, value)


TENSOR_MISTAKES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda t: t.pop(f"{DOWN}.weight_packed"),
        rf"tensor {DOWN}.weight_packed is missing, expected U8 \[64, 24\]",
    ),
    (lambda t: t.pop(f"{DOWN}.weight_positions"), r"weight_positions is missing, expected U8 \[64, 12\]"),
    (lambda t: t.pop("lm_head.weight_min"), r"lm_head.weight_min is missing, expected F16 \[300, 2\]"),
    (lambda t: t.pop("model.norm.weight"), "tensor model.norm.weight is missing"),
    (
        lambda t: t.update({f"{DOWN}.weight_packed": t[f"{DOWN}.weight_packed"].view(np.int8)}),
        r"weight_packed is I8 \[64, 24\], expected U8 \[64, 24\] for 2:4-int4-table-g32",
    ),
    (
        lambda t: t.update({f"{DOWN}.weight_scale": t[f"{DOWN}.weight_scale"].astype(np.float32)}),
        r"weight_scale is F32 \[64, 3\], expected F16 \[64, 3\]",
    ),
    (
        lambda t: t.update({f"{DOWN}.weight_scale": t[f"{DOWN}.weight_scale"].T.copy()}),
        r"weight_scale is F16 \[3, 64\], expected F16 \[64, 3\]",
    ),
    (
        set_value(f"{DOWN}.weight_scale", (5, 2), np.nan),
        rf"tensor {DOWN}.weight holds values that are not finite",
    ),
    (
        set_value("lm_head.weight_min", (299, 1), np.inf),
        "tensor lm_head.weight holds values that are not finite",
    ),
    (
        set_value(f"{DOWN}.weight_table", 3, 33),
        rf"tensor {DOWN}.weight: table: .*expected entries of -32 to 32",
    ),
    (set_value(f"{DOWN}.weight_positions", (63, 11), 0), rf"tensor {DOWN}.weight: positions: not ascending"),
    (
        lambda t: t.update({"lm_head.weight_table": np.zeros(16, np.int8)}),
        "lm_head.weight_table is not part of a",
    ),
    (lambda t: t.update({"e\x1b": np.zeros(16, np.int8)}), r"tensor 'e\\x1b' is not part of a"),
    (
        lambda t: t.update({"lm_head.weight": np.zeros((300, 64), np.float32)}),
        "tensor lm_head.weight is there, expected it as int4-min-g32 only",
    ),
    (
        lambda t: t.update({"model.norm.weight": np.ones(64, np.uint8)}),
        "tensor model.norm.weight has the type U8, expected one of F32, F16, BF16",
    ),
]


@pytest.mark.parametrize(("change", "message"), TENSOR_MISTAKES)
def test_tensor_mistakes(artefact: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_tensors(artefact, change)
    refuse(artefact, message)


RECORD_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"method": 1}, "compression.json: method is 1, expected a string"),
    ({"method": None}, "method is missing"),
    ({"options": []}, "options is .*, expected an object"),
    ({"bidtrie_version": 1}, "bidtrie_version is 1"),
    ({"reference": {"name": "x"}}, "reference: content_hash is missing"),
    ({"reference": {"name": "x", "content_hash": "y", "path": "z"}}, "the key path is unknown"),
    ({"linears": 3}, "linears is 3, expected an object"),
    ({"linears": {DOWN: {}}}, rf"linears: {DOWN}: format is missing"),
    ({"files": {}}, "is not part of the model, compression.json does not name it"),
    ({"files": []}, r"files is \[\], expected an object"),
    ({"seed": 1}, "compression.json: the key seed is unknown"),
]


@pytest.mark.parametrize(("changes", "message"), RECORD_MISTAKES)
def test_record_mistakes(artefact: Path, changes: dict[str, Any], message: str) -> None:
    change_json(artefact / "compression.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(artefact)
    assert str(artefact) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits_per_weight": 0}, "bits_per_weight is 0, expected a positive number"),
        ({"relative_error": -1}, "relative_error is -1, expected 0 or more"),
        ({"relative_error": "small"}, "relative_error is 'small', expected a number"),
        ({"note": ""}, "the key note is unknown"),
    ],
)
def test_mistakes_in_the_record_of_a_linear(artefact: Path, changes: dict[str, Any], message: str) -> None:
    linears = json.loads((artefact / "compression.json").read_text())["linears"]
    linears[DOWN] |= changes
    change_json(artefact / "compression.json", linears=linears)
    with pytest.raises(ModelError, match=rf"compression.json: linears: {DOWN}: {message}"):
        load_checkpoint(artefact)


@pytest.mark.parametrize(
    "name",
    ["../config.json", "/etc/passwd", "a\0b", "chat_template.jinja/x"],
    ids=["up", "root", "nul", "below"],
)
def test_names_of_files_are_never_followed(artefact: Path, name: str) -> None:
    record = json.loads((artefact / "compression.json").read_text())
    change_json(artefact / "compression.json", files=record["files"] | {name: "0" * 64})
    with pytest.raises(ModelError, match=r"is missing or not read, compression.json names it") as caught:
        load_checkpoint(artefact)
    assert str(caught.value).isprintable()


def test_unused_ids_that_the_vocabulary_does_not_have(artefact: Path) -> None:
    for value, message in [([300], "holds 300, expected 0 to 299"), ([-1], "holds -1"), ("x", "a list of")]:
        change_json(artefact / "tokenizer_config.json", unused_token_ids=value)
        refuse(artefact, f"tokenizer_config.json: unused_token_ids .*{message}")


def test_arrays_that_begin_at_an_odd_byte(artefact: Path, whole: Path) -> None:
    """The format allows it: such arrays are copied, so that nobody meets one that is not aligned."""
    content = (artefact / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    odd = (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
    (artefact / "model.safetensors").write_bytes(odd)
    sign(artefact)
    expected = load_checkpoint(whole).tensors
    for name, tensor in load_checkpoint(artefact).tensors.items():
        arrays = [tensor.scales, tensor.codes] if isinstance(tensor, GroupTensor) else [tensor.data]
        assert all(array.flags.aligned for array in arrays)
        np.testing.assert_array_equal(tensor.dequantize(), expected[name].dequantize())


def test_rows_that_no_format_fits() -> None:
    """Half of the arrays would fit rows of 24, but they are refused before any is looked at."""
    config = random_checkpoint(intermediate=24).config
    formats = {DOWN: GroupFormat(4, 32)}
    with pytest.raises(ModelError, match=rf"tensor {DOWN}.weight has rows of 24, expected a multiple of 16"):
        take_group_tensors("folder", config, formats, {})
    with pytest.raises(ModelError, match=rf"tensor {DOWN}.weight_packed is missing"):
        take_group_tensors("folder", random_checkpoint().config, formats, {})
