"""GGUF files against the models that they were written from, and against the `gguf` package's own reader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.gguf_checkpoint import half_rotation_order
from bidtrie.models.gguf_file import read_gguf
from bidtrie.models.load import load_checkpoint
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from models.tiny_files import BOS, EOS, add_tiny_tokenizer, gguf_name, llama_cpp_permute, write_gguf
from reference.tiny_models import KINDS, save_tiny_model, tiny_tokenizer

Q4_1, Q8_0, F16, BF16, Q4_0 = (GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "F16", "BF16", "Q4_0"))
#: How llama.cpp's converter would spell the rotary scaling of a kind.
ROPE_METADATA: dict[str, dict[str, Any]] = {
    "llama-linear-rope": {"rope.scaling.type": "linear", "rope.scaling.factor": 2.5},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Every kind of tiny model that GGUF can hold as it is: Hugging Face folder, and the transformers model."""
    result = {}
    for kind in KINDS:
        if kind != "llama-llama3-rope":
            folder = tmp_path_factory.mktemp(kind)
            result[kind] = (folder, save_tiny_model(kind, folder))
    return result


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path)


def assert_same_model(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert set(ours.tensors) == set(theirs.tensors)
    for name, tensor in ours.tensors.items():
        assert tensor.shape == theirs.tensors[name].shape
        np.testing.assert_array_equal(tensor.dequantize(), theirs.tensors[name].dequantize(), err_msg=name)
    np.testing.assert_allclose(ours.config.inv_freq, theirs.config.inv_freq, rtol=2e-6)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "llama-linear-rope", "mistral", "qwen2", "qwen3"])
def test_same_model_as_its_hugging_face_directory(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, kind: str
) -> None:
    folder, model = models[kind]
    write_gguf(tmp_path / "tiny.gguf", model, metadata=ROPE_METADATA.get(kind))
    ours, theirs = load_checkpoint(tmp_path / "tiny.gguf"), load_checkpoint(folder)
    assert_same_model(ours, theirs)
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "head_dim",
    ):
        assert getattr(ours.config, name) == getattr(theirs.config, name)
    for name in ("context_length", "tie_word_embeddings", "qk_norm", "eos_token_ids", "attention_factor"):
        assert getattr(ours.config, name) == getattr(theirs.config, name)
    assert ours.config.rms_norm_eps == pytest.approx(theirs.config.rms_norm_eps, rel=1e-6)
    # llama.cpp has no name of its own for Mistral.
    assert ours.config.architecture == theirs.config.architecture.replace("Mistral", "Llama")
    assert ours.name == "tiny"


def test_rows_in_the_stored_order_are_another_model(models: dict[str, tuple[Path, Any]]) -> None:
    weight = models["llama"][1].model.layers[0].self_attn.q_proj.weight.detach().numpy()
    stored = llama_cpp_permute(weight, 4)
    assert not np.array_equal(stored, weight)
    np.testing.assert_array_equal(stored[half_rotation_order(4, 16)], weight)


def test_types(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    """Q4_1 and Q8_0 blocks keep their bytes; half precision and other quantized types become float32."""
    model = models["llama"][1]
    formats = {
        "q_proj": Q4_1,
        "k_proj": Q8_0,
        "v_proj": F16,
        "o_proj": BF16,
        "up_proj": Q4_0,
        "embed_tokens": Q8_0,
    }
    write_gguf(tmp_path / "tiny.gguf", model, formats)
    checkpoint = load_checkpoint(tmp_path / "tiny.gguf")
    state = {name: weight.numpy() for name, weight in model.state_dict().items()}
    for name, tensor in checkpoint.tensors.items():
        kind = next((k for end, k in formats.items() if name.removesuffix(".weight").endswith(end)), None)
        expected = state[name]
        if kind in (Q4_1, Q8_0):
            # Blocks lie along a row, so quantizing commutes with moving rows.
            assert tensor.format == kind.name.lower()
            np.testing.assert_array_equal(tensor.data, quantize(expected, kind))
            assert tensor.bits_per_weight == (5 if kind == Q4_1 else 8.5)
        else:
            assert tensor.format == "float32"
            if kind == F16:
                expected = expected.astype(np.float16).astype(np.float32)
            elif kind is not None:
                expected = dequantize(quantize(expected, kind), kind)
            np.testing.assert_array_equal(tensor.data, expected)
            assert tensor.bits_per_weight == 32


@pytest.mark.parametrize("name", ["yarn", "linear", "none", "old-linear", "freqs"])
def test_rope_scaling(models: dict[str, tuple[Path, Any]], tmp_path: Path, name: str) -> None:
    from bidtrie.models.fields import Fields
    from bidtrie.models.rope import inverse_frequencies

    metadata: dict[str, dict[str, Any]] = {
        "yarn": {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64,
        },
        "linear": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        "none": {"rope.scaling.type": "none"},
        "old-linear": {"rope.scale_linear": 4.0},
        "freqs": {},
    }
    as_hugging_face = {
        "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        "linear": {"rope_type": "linear", "factor": 4.0},
        "old-linear": {"rope_type": "linear", "factor": 4.0},
    }
    model = models["llama"][1]
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    if name == "freqs":
        original = model.state_dict

        class WithFactors:
            config = model.config

            @staticmethod
            def state_dict() -> dict[str, Any]:
                import torch

                return {**original(), "rope_freqs.weight": torch.from_numpy(factors)}

        from models import tiny_files

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tiny_files.GGUF_NAMES, "rope_freqs", "rope_freqs")
            write_gguf(tmp_path / "tiny.gguf", WithFactors)
    else:
        write_gguf(tmp_path / "tiny.gguf", model, metadata=metadata[name])
    config = load_checkpoint(tmp_path / "tiny.gguf").config
    expected, factor = inverse_frequencies(Fields("x", as_hugging_face.get(name, {})), 16, 256)
    np.testing.assert_allclose(
        config.inv_freq, expected / factors if name == "freqs" else expected, rtol=1e-6
    )
    assert config.attention_factor == factor


def test_sliding_window_caps_the_context(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", models["mistral"][1], metadata={"attention.sliding_window": 100})
    assert load_checkpoint(tmp_path / "tiny.gguf").config.context_length == 100


def test_tokenizer_is_the_same(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", models["llama"][1])
    ours, theirs = load_checkpoint(tmp_path / "tiny.gguf").tokenizer, tiny_tokenizer()
    text = "the thing in the region, 123 \n\n naïve 😀\x00<eos>"
    assert ours.encode(text, parse_special=True) == theirs.encode(text).ids
    assert (ours.bos_id, ours.eos_ids, ours.special_ids) == (BOS, (EOS,), {BOS, EOS})


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"block_count": 3}, "tensor model.layers.2.input_layernorm.weight is missing"),
    ({"block_count": 1}, "tensor model.layers.1.* is not part of a LlamaForCausalLM model"),
    ({"block_count": 1 << 31}, "num_layers is 2147483648, expected 1 to"),
    ({"embedding_length": 32}, r"has shape \[300, 64\], expected \[300, 32\]"),
    ({"embedding_length": "64"}, "llama.embedding_length is '64', expected an integer"),
    ({"attention.head_count": 0}, "num_heads is 0"),
    ({"attention.head_count_kv": 3}, "expected a multiple of num_kv_heads"),
    ({"attention.value_length": 8}, "llama.attention.value_length is 8, expected the head size 16"),
    (
        {"attention.key_length": 1 << 30, "attention.value_length": 1 << 30, "rope.dimension_count": 1 << 30},
        "head size is",
    ),
    ({"rope.dimension_count": 8}, "llama.rope.dimension_count is 8, expected the head size 16"),
    ({"rope.scaling.type": "longrope"}, "rope_type 'longrope' is unknown"),
    ({"rope.scaling.type": "linear"}, "rope: factor is missing"),
    ({"rope.scaling.attn_factor": 1.5}, "rope.scaling.attn_factor is 1.5, expected 1.0"),
    ({"rope.freq_base": float("nan")}, "rope_theta is nan, expected a finite number"),
    ({"attention.layer_norm_rms_epsilon": float("inf")}, "expected a finite number"),
    ({"expert_count": 8}, "mixtures of experts are not supported"),
    ({"context_length": 0}, "context_length is 0"),
]


@pytest.mark.parametrize(("metadata", "message"), MISTAKES)
def test_metadata_mistakes(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", models["llama"][1], metadata=metadata)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(tmp_path / "tiny.gguf")
    assert "tiny.gguf" in str(caught.value)


def small_gguf(path: Path, arch: str = "llama", tensors: dict[str, Any] | None = None) -> Path:
    writer = GGUFWriter(path, arch)
    add_tiny_tokenizer(writer)
    for name, values in (tensors or {"token_embd.weight": np.ones((4, 4), np.float32)}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_other_architectures_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="architecture gemma2 is not supported, expected one of llama, qwen2, qwen3"
    ):
        load_checkpoint(small_gguf(tmp_path / "a.gguf", "gemma2"))
    with pytest.raises(ModelError, match=r"tensor token_embd.weight is missing"):
        load_checkpoint(
            small_gguf(tmp_path / "b.gguf", tensors={"output.weight": np.ones((4, 4), np.float32)})
        )
    with pytest.raises(ModelError, match=r"llama.embedding_length is missing, expected an integer"):
        load_checkpoint(small_gguf(tmp_path / "c.gguf"))


def test_unknown_tensor_is_named(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    from models import tiny_files

    model = models["llama"][1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_files.GGUF_NAMES, "mlp.up_proj", "ffn_up_exps")
        write_gguf(tmp_path / "tiny.gguf", model)
    with pytest.raises(
        ModelError, match=r"tensor blk.0.ffn_up_exps.weight is not part of a LlamaForCausalLM"
    ):
        load_checkpoint(tmp_path / "tiny.gguf")


def test_block_scales_must_be_finite(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, models["llama"][1], {"gate_proj": Q4_1, "down_proj": Q8_0})
    for tensor in GGUFReader(path).tensors:
        if tensor.name in ("blk.1.ffn_gate.weight", "blk.0.ffn_down.weight"):
            content = bytearray(path.read_bytes())
            at = int(tensor.data_offset) + (2 if "gate" in tensor.name else 34)
            content[at : at + 2] = np.float16(np.inf).tobytes()
            (tmp_path / "bad.gguf").write_bytes(content)
            with pytest.raises(
                ModelError, match=r"mlp.(gate|down)_proj.weight holds values that are not finite"
            ):
                load_checkpoint(tmp_path / "bad.gguf")


def test_smollm2_agrees_with_the_gguf_package(smollm2: Checkpoint, smollm2_path: Path) -> None:
    """All bytes of all tensors, and the metadata, as the reference reader sees them."""
    reader, ours = GGUFReader(smollm2_path), read_gguf(smollm2_path)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert set(ours.tensors) == set(stored)
    assert ours.metadata == {
        key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }
    for name, tensor in smollm2.tensors.items():
        theirs = stored[gguf_name(name)]
        data = theirs.data
        if heads := {"attn_q": 9, "attn_k": 3}.get(theirs.name.split(".")[-2]):
            assert not np.array_equal(tensor.data, data)
            data_again = llama_cpp_permute(tensor.data, heads)
            np.testing.assert_array_equal(data_again, data)
        else:
            np.testing.assert_array_equal(tensor.data, data)
        assert tensor.shape == tuple(int(size) for size in theirs.shape[::-1])
        np.testing.assert_array_equal(
            dequantize(data[:2], theirs.tensor_type) if data.ndim == 2 else data,
            llama_cpp_permute(tensor.dequantize(), heads)[:2]
            if heads
            else tensor.dequantize()[: 2 if data.ndim == 2 else None],
        )


def test_smollm2_configuration(smollm2: Checkpoint) -> None:
    config = smollm2.config
    assert config.architecture == "LlamaForCausalLM"
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (49152, 576, 1536)
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert config.context_length == 8192
    assert config.tie_word_embeddings
    assert config.eos_token_ids == (2,)
    assert config.bos_token_id is None, "the file says that no token is added in front"
    assert smollm2.licence == "apache-2.0"
    formats = [tensor.format for tensor in smollm2.tensors.values()]
    assert (formats.count("q4_1"), formats.count("q8_0"), formats.count("float32")) == (210, 1, 61)


def mean_loss(smollm2: Checkpoint, text: str, *, stored_order: bool) -> float:
    """Nats a token under transformers' Llama, with q and k rows as loaded or as the file stores them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = smollm2.config
    state = {}
    for name, tensor in smollm2.tensors.items():
        values = tensor.dequantize()
        if stored_order and (heads := {"q_proj": 9, "k_proj": 3}.get(name.split(".")[-2])):
            values = llama_cpp_permute(values, heads)
        state[name] = torch.from_numpy(np.array(values))
    config = LlamaConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=ours.intermediate_size,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_heads,
        num_key_value_heads=ours.num_kv_heads,
        rms_norm_eps=ours.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    ids = torch.tensor([smollm2.tokenizer.encode(text)])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss)


def test_smollm2_reads_english(smollm2: Checkpoint) -> None:
    """Rows in rotary order predict plain text as a trained model does; rows as stored do worse by far."""
    text = (
        "The water cycle describes how water moves between the sea, the air and the land. The sun warms the sea, "
        "and water evaporates. The vapour rises, cools and forms clouds. When the drops in the clouds grow heavy, it "
        "rains. Rain that falls on the land runs into rivers, and the rivers carry the water back to the sea."
    )
    loss = mean_loss(smollm2, text, stored_order=False)
    assert loss < 2.6
    assert mean_loss(smollm2, text, stored_order=True) > loss + 0.5
