"""Compressed models: what is written reads back, to bidtrie and to transformers, whole or not at all."""

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models import artefact_writer
from bidtrie.models.artefact_writer import check_writable, write_artefact
from bidtrie.models.checkpoint import Checkpoint, GroupTensor, ModelConfig, Tensor
from bidtrie.models.group_tensor import GroupFormat
from bidtrie.models.load import load_checkpoint
from gguf import GGMLQuantizationType, GGUFWriter
from models import tiny_files
from models.tiny_artefacts import compressed, write_tiny_artefact
from models.tiny_files import BOS, EOS, change_json, write_gguf
from reference.group_tensors import FORMATS
from reference.tiny_models import KINDS, save_tiny_model
from safetensors import SafetensorError, safe_open

INT4 = GroupFormat(4, 32)
ARRAYS = ("codes", "scales", "minimums", "table", "positions")
TEXT = "the thing in the region, 123 \n\n naïve 😀\x00<eos>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Every kind of tiny model: its folder, and the transformers model."""
    result = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        result[kind] = (folder, save_tiny_model(kind, folder))
    return result


@pytest.fixture
def llama(models: dict[str, tuple[Path, Any]]) -> Checkpoint:
    return load_checkpoint(models["llama"][0])


def as_gguf(path: Path, model: Any, **metadata: Any) -> Checkpoint:
    """The model in GGUF, linears in Q4_1 and the embedding in Q8_0."""
    kinds = {"_proj": GGMLQuantizationType.Q4_1, "embed_tokens": GGMLQuantizationType.Q8_0}
    write_gguf(path, model, kinds, metadata)
    return load_checkpoint(path)


def assert_same_model(ours: Checkpoint, source: Checkpoint) -> None:
    """Configuration and tokenizer are equal, and so is every tensor that is not compressed."""
    for field in fields(ModelConfig):
        np.testing.assert_array_equal(getattr(ours.config, field.name), getattr(source.config, field.name))
    assert ours.licence == source.licence
    assert ours.huggingface_config == source.huggingface_config
    assert set(ours.tensors) == set(source.tensors)
    for name, tensor in ours.tensors.items():
        assert tensor.shape == source.tensors[name].shape
        if isinstance(tensor, Tensor):
            np.testing.assert_array_equal(tensor.data, source.tensors[name].dequantize(), err_msg=name)
    assert_same_tokenizer(ours, source)


def assert_same_tokenizer(ours: Checkpoint, source: Checkpoint) -> None:
    one, other = ours.tokenizer, source.tokenizer
    for name in ("content_hash", "special_ids", "eos_ids", "bos_id", "vocab_size", "chat_template"):
        assert getattr(one, name) == getattr(other, name), name
    for parse in (False, True):
        assert one.encode(TEXT, parse_special=parse) == other.encode(TEXT, parse_special=parse)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_tensors_come_back(llama: Checkpoint, tmp_path: Path, format: GroupFormat) -> None:
    head = FORMATS[0]
    linears, record = compressed(llama, format, head)
    written = write_artefact(tmp_path / "out", llama, linears, record)
    read = load_checkpoint(tmp_path / "out")
    assert read.content_hash == written.content_hash
    assert read.name == written.name == "out"
    assert read.compression == record
    assert_same_model(read, llama)
    groups = {name: tensor for name, tensor in read.tensors.items() if isinstance(tensor, GroupTensor)}
    assert len(groups) == 2 * 7 + 2
    for name, tensor in groups.items():
        module = name.removesuffix(".weight")
        assert tensor.format == (head if module in ("model.embed_tokens", "lm_head") else format)
        for field in ARRAYS:
            ours, theirs = getattr(tensor, field), getattr(linears[module], field)
            np.testing.assert_array_equal(ours, theirs)
            if ours is not None:
                assert ours.dtype == theirs.dtype
                assert ours.flags.aligned
                assert not ours.flags.owndata, "a view of the mapped file"
        np.testing.assert_array_equal(tensor.dequantize(), linears[module].dequantize())
        # The comparison can fail: the weight itself is another one.
        assert not np.array_equal(tensor.dequantize(), llama.tensors[name].dequantize())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_directory(models: dict[str, tuple[Path, Any]], tmp_path: Path, kind: str) -> None:
    source = load_checkpoint(models[kind][0])
    write_tiny_artefact(tmp_path / "out", source, INT4)
    read = load_checkpoint(tmp_path / "out")
    assert_same_model(read, source)
    assert ("lm_head.weight" in read.tensors) == (not source.config.tie_word_embeddings)


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        ("llama", {}),
        ("llama-tied", {"rope.freq_base": 500000.0}),
        ("llama-linear-rope", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.5}),
        ("llama", {"rope.scale_linear": 4.0}),
        (
            "llama",
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 64,
                "rope.scaling.yarn_beta_fast": 16.0,
            },
        ),
        (
            "llama",
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "attention.sliding_window": 100},
        ),
        ("mistral", {"attention.sliding_window": 100}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
    ids=str,
)
def test_every_kind_of_gguf(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, kind: str, metadata: dict[str, Any]
) -> None:
    source = as_gguf(tmp_path / "tiny.gguf", models[kind][1], **metadata)
    write_tiny_artefact(tmp_path / "out", source, INT4)
    read = load_checkpoint(tmp_path / "out")
    assert_same_model(read, source)
    # The reference is what the file's blocks stand for, not the weights that they were made of.
    name = "model.layers.1.mlp.up_proj"
    expected = compressed(source, INT4, INT4)[0][name].dequantize()
    np.testing.assert_array_equal(read.tensors[f"{name}.weight"].dequantize(), expected)


@pytest.mark.parametrize(
    ("kind", "source_kind"),
    [
        ("llama", "directory"),
        ("llama", "gguf"),
        ("llama-llama3-rope", "directory"),
        ("qwen3", "directory"),
        ("qwen3", "gguf"),
    ],
)
def test_transformers_reads_configuration_and_tokenizer(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, kind: str, source_kind: str
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder, model = models[kind]
    source = load_checkpoint(folder) if source_kind == "directory" else as_gguf(tmp_path / "tiny.gguf", model)
    write_tiny_artefact(tmp_path / "out", source, INT4)
    theirs = AutoConfig.from_pretrained(tmp_path / "out")
    assert theirs.quantization_config["quant_method"] == "bidtrie"
    for name in (
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "tie_word_embeddings",
        "rope_parameters",
        "attention_bias",
    ):
        assert getattr(theirs, name, None) == getattr(model.config, name, None), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode(TEXT, add_special_tokens=False) == source.tokenizer.encode(
        TEXT, parse_special=True
    )
    assert tokenizer.eos_token_id == EOS


def test_file_as_safetensors_reads_it(llama: Checkpoint, tmp_path: Path) -> None:
    format = GroupFormat(4, 32, table=True, pattern="2:4")
    write_tiny_artefact(tmp_path / "out", llama, format, GroupFormat(4, 64, minimum=True))
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        slices = {name: file.get_slice(name) for name in list(file.keys())}
        stored = {name: (each.get_dtype(), each.get_shape()) for name, each in slices.items()}
    assert stored["model.norm.weight"] == ("F32", [64])
    prefix = "model.layers.1.mlp.down_proj.weight"
    assert {name: value for name, value in stored.items() if name.startswith(prefix)} == {
        f"{prefix}_packed": ("U8", [64, 24]),
        f"{prefix}_scale": ("F16", [64, 3]),
        f"{prefix}_table": ("I8", [16]),
        f"{prefix}_positions": ("U8", [64, 12]),
    }
    assert {name: value for name, value in stored.items() if name.startswith("lm_head")} == {
        "lm_head.weight_packed": ("U8", [300, 32]),
        "lm_head.weight_scale": ("F16", [300, 1]),
        "lm_head.weight_min": ("F16", [300, 1]),
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format_version"]) == ("bidtrie", 1)
    assert config["linears"]["model.layers.1.mlp.down_proj"] == {
        "bits": 4,
        "group_size": 32,
        "minimum": False,
        "table": True,
        "pattern": "2:4",
    }
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert record["reference"] == {"name": llama.name, "content_hash": llama.content_hash}
    assert set(record["files"]) == {path.name for path in (tmp_path / "out").iterdir()} - {"compression.json"}
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "the weights are as readable as the other files"


def test_linears_that_are_not_compressed_stay_float32(llama: Checkpoint, tmp_path: Path) -> None:
    linears, record = compressed(llama, INT4, INT4)
    kept = {"model.embed_tokens", "model.layers.0.mlp.up_proj"}
    some = {name: tensor for name, tensor in linears.items() if name in kept}
    short = replace(record, linears={name: each for name, each in record.linears.items() if name in kept})
    write_artefact(tmp_path / "out", llama, some, short)
    read = load_checkpoint(tmp_path / "out")
    assert {name for name, tensor in read.tensors.items() if isinstance(tensor, GroupTensor)} == {
        f"{name}.weight" for name in kept
    }
    assert_same_model(read, llama)


def test_the_same_bytes_each_time(llama: Checkpoint, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tiny_artefact(tmp_path / name, llama, INT4)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert load_checkpoint(tmp_path / "one").content_hash == load_checkpoint(tmp_path / "two").content_hash
    write_tiny_artefact(tmp_path / "three", llama, GroupFormat(4, 64))
    assert load_checkpoint(tmp_path / "three").content_hash != load_checkpoint(tmp_path / "one").content_hash


def test_an_artefact_can_be_compressed_again(llama: Checkpoint, tmp_path: Path) -> None:
    write_tiny_artefact(tmp_path / "int8", llama, GroupFormat(8, 32))
    source = load_checkpoint(tmp_path / "int8")
    write_tiny_artefact(tmp_path / "int4", source, INT4)
    read = load_checkpoint(tmp_path / "int4")
    assert_same_model(read, source)
    assert read.compression is not None
    assert read.compression.reference_hash == source.content_hash


def test_ends_of_texts_and_templates(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = Path(shutil.copytree(models["llama"][0], tmp_path / "model"))

    def check(name: str) -> Checkpoint:
        source = load_checkpoint(folder)
        write_tiny_artefact(tmp_path / name, source, INT4)
        read = load_checkpoint(tmp_path / name)
        assert_same_model(read, source)
        return read

    settings = {
        "add_bos_token": True,
        "bos_token": {"content": "<bos>"},
        "chat_template": "{{ a }}\r\n{# é #}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 3]}))
    read = check("named")
    assert (read.tokenizer.bos_id, read.tokenizer.eos_ids) == (BOS, (EOS, 3))
    assert read.tokenizer.chat_template == "{{ a }}\r\n{# é #}"

    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").unlink()
    change_json(folder / "config.json", eos_token_id=None)
    assert check("nothing").tokenizer.eos_ids == ()

    tokenizer = tiny_files.tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert check("processor").tokenizer.bos_id == BOS


def test_unused_tokens_of_a_gguf(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GGUFWriter.add_token_types
    monkeypatch.setattr(
        GGUFWriter,
        "add_token_types",
        lambda self, types: original(self, [5 if i in (280, 299) else kind for i, kind in enumerate(types)]),
    )
    source = as_gguf(tmp_path / "tiny.gguf", models["llama"][1])
    assert source.tokenizer.special_ids == {BOS, EOS, 280, 299}
    write_tiny_artefact(tmp_path / "out", source, INT4)
    assert_same_model(load_checkpoint(tmp_path / "out"), source)
    settings = tmp_path / "out" / "tokenizer_config.json"
    assert json.loads(settings.read_text())["unused_token_ids"] == [280, 299]


def test_rotary_frequencies_that_no_configuration_gives(
    models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """A GGUF may hold factors of its own: such a model is refused before any work, not written wrongly."""
    import torch

    original = models["llama"][1]

    class WithFactors:
        config = original.config

        @staticmethod
        def state_dict() -> dict[str, Any]:
            return {**original.state_dict(), "rope_freqs.weight": torch.linspace(1, 8, 8)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_files.GGUF_NAMES, "rope_freqs", "rope_freqs")
        source = as_gguf(tmp_path / "tiny.gguf", WithFactors)
    assert source.huggingface_config is None
    with pytest.raises(ModelError, match=r"tiny: its rotary frequencies cannot be said in .* config.json"):
        check_writable(source, tmp_path / "out")


def test_what_would_read_back_differently_is_not_written(llama: Checkpoint, tmp_path: Path) -> None:
    linears, record = compressed(llama, INT4, INT4)
    changed: list[tuple[Checkpoint, str]] = [
        (
            replace(llama, config=replace(llama.config, inv_freq=llama.config.inv_freq * np.float32(1.001))),
            "cannot say the model's inv_freq$",
        ),
        (replace(llama, config=replace(llama.config, rms_norm_eps=1e-4)), "the model's rms_norm_eps$"),
        (
            replace(llama, tokenizer=llama.tokenizer.with_ends(bos_id=BOS, eos_ids=[EOS, 999_999])),
            "eos token id is 999999",
        ),
    ]
    for source, message in changed:
        with pytest.raises(ModelError, match=message):
            write_artefact(tmp_path / "out", source, linears, record)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda out: (out.mkdir(), (out / "x").touch()),
            "out: is there already, expected a new or empty folder",
        ),
        (lambda out: out.touch(), "out: is there already"),
        (lambda out: out.symlink_to("/dev/null"), "out: is there already"),
    ],
)
def test_what_is_there_is_left_alone(
    llama: Checkpoint, tmp_path: Path, prepare: Callable[[Path], Any], message: str
) -> None:
    prepare(tmp_path / "out")
    linears, record = compressed(llama, INT4, INT4)
    for refuse in (
        lambda: check_writable(llama, tmp_path / "out"),
        lambda: write_artefact(tmp_path / "out", llama, linears, record),
    ):
        with pytest.raises(ModelError, match=message):
            refuse()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_places_that_cannot_be_written(llama: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: no such folder"):
        check_writable(llama, tmp_path / "nowhere" / "out")
    with pytest.raises(ModelError, match=r"is not a path"):
        check_writable(llama, tmp_path / "a\0b")


def test_an_empty_folder_is_filled(
    llama: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_tiny_artefact(tmp_path / "link", llama, INT4)
    assert_same_model(load_checkpoint(tmp_path / "real"), llama)
    monkeypatch.chdir(tmp_path)
    write_tiny_artefact(Path("relative"), llama, INT4)
    assert_same_model(load_checkpoint(tmp_path / "relative"), llama)


FAILURES: list[tuple[BaseException, type[BaseException]]] = [
    (OSError(errno.ENOSPC, "No space left on device"), ModelError),
    (SafetensorError("I/O error: No space left on device"), ModelError),
    (KeyboardInterrupt(), KeyboardInterrupt),
]


@pytest.mark.parametrize(("failure", "expected"), FAILURES, ids=repr)
@pytest.mark.parametrize("step", ["save_file", "write_tokenizer", "read_huggingface_checkpoint", "_sync"])
def test_nothing_is_left_after_a_failure(
    llama: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    linears, record = compressed(llama, INT4, INT4)
    reached = []

    def fail(*arguments: Any, **options: Any) -> None:
        reached.append(list(tmp_path.iterdir()))
        raise failure

    monkeypatch.setattr(artefact_writer, step, fail)
    with pytest.raises(expected) as caught:
        write_artefact(tmp_path / "out", llama, linears, record)
    if expected is ModelError:
        assert "out: cannot be written: " in str(caught.value)
        assert "No space left on device" in str(caught.value)
    assert len(reached[0]) == 1
    assert reached[0][0].name != "out", "the folder has its name only once it is whole"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fills_meanwhile(
    llama: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linears, record = compressed(llama, INT4, INT4)
    original = artefact_writer.read_huggingface_checkpoint

    def fill(*arguments: Any) -> Checkpoint:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        return original(*arguments)

    monkeypatch.setattr(artefact_writer, "read_huggingface_checkpoint", fill)
    with pytest.raises(ModelError, match="out: cannot be written: Directory not empty"):
        write_artefact(tmp_path / "out", llama, linears, record)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
