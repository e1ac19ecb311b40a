"""Hugging Face directories against the models that transformers saved there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import ModelError
from bidtrie.models.load import load_checkpoint
from models.tiny_files import BOS, EOS, change_json
from reference.tiny_models import KINDS, VOCABULARY, save_tiny_model, tiny_tokenizer
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Every kind of tiny model: its folder, and the transformers model."""
    result = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        result[kind] = (folder, save_tiny_model(kind, folder))
    return result


@pytest.fixture
def llama(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> Path:
    """A copy of a tiny Llama's folder, to be damaged."""
    return Path(shutil.copytree(saved["llama"][0], tmp_path / "tiny-llama"))


def expected_tensors(model: Any) -> dict[str, Any]:
    tied = model.config.tie_word_embeddings
    return {k: v for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_equal(saved: dict[str, tuple[Path, Any]], kind: str) -> None:
    folder, model = saved[kind]
    checkpoint = load_checkpoint(folder)
    expected = expected_tensors(model)
    assert set(checkpoint.tensors) == set(expected)
    for name, tensor in checkpoint.tensors.items():
        assert tensor.format == "float32"
        assert tensor.shape == tuple(expected[name].shape)
        np.testing.assert_array_equal(tensor.dequantize(), expected[name].numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_configuration(saved: dict[str, tuple[Path, Any]], kind: str) -> None:
    folder, model = saved[kind]
    checkpoint, theirs = load_checkpoint(folder), model.config
    ours = checkpoint.config
    assert ours.architecture == type(model).__name__
    assert ours.vocab_size == theirs.vocab_size
    assert ours.hidden_size == theirs.hidden_size
    assert ours.intermediate_size == theirs.intermediate_size
    assert ours.num_layers == theirs.num_hidden_layers
    assert (ours.num_heads, ours.num_kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert ours.head_dim == model.model.layers[0].self_attn.head_dim
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.context_length == theirs.max_position_embeddings
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.qk_norm == (kind == "qwen3")
    assert ours.bos_token_id is None, "the tiny tokenizer adds no token of its own"
    assert ours.eos_token_ids == (EOS,)
    np.testing.assert_allclose(ours.inv_freq, model.model.rotary_emb.inv_freq.numpy(), rtol=2e-6)
    assert checkpoint.name == folder.name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(saved: dict[str, tuple[Path, Any]], tmp_path: Path, dtype: str) -> None:
    import torch

    model = saved["qwen2"][1].to(getattr(torch, dtype))
    try:
        model.save_pretrained(tmp_path)
        tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
        checkpoint = load_checkpoint(tmp_path)
        for name, expected in expected_tensors(model).items():
            assert checkpoint.tensors[name].data.dtype == np.float32
            np.testing.assert_array_equal(checkpoint.tensors[name].data, expected.float().numpy())
    finally:
        model.to(torch.float32)


def test_shards(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    model = saved["llama"][1]
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    checkpoint = load_checkpoint(tmp_path)
    for name, expected in expected_tensors(model).items():
        np.testing.assert_array_equal(checkpoint.tensors[name].data, expected.numpy())


@pytest.mark.parametrize(
    ("kind", "changes", "context"),
    [
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": 1000}, 256),
        ("mistral", {"sliding_window": None}, 256),
        ("mistral", {"sliding_window": ..., "max_position_embeddings": 8192}, 4096),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, 64),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 64}, 256),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64}, 64),
    ],
)
def test_sliding_window_caps_the_context(
    saved: dict[str, tuple[Path, Any]], tmp_path: Path, kind: str, changes: dict[str, Any], context: int
) -> None:
    folder = Path(shutil.copytree(saved[kind][0], tmp_path / "model"))
    change_json(folder / "config.json", **changes)
    assert load_checkpoint(folder).config.context_length == context


def test_ends_of_texts(llama: Path) -> None:
    (llama / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 3]}))
    (llama / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": {"content": "<bos>"}, "chat_template": "{{ a }}"})
    )
    checkpoint = load_checkpoint(llama)
    assert checkpoint.config.eos_token_ids == checkpoint.tokenizer.eos_ids == (EOS, 3)
    assert checkpoint.config.bos_token_id == checkpoint.tokenizer.bos_id == BOS
    assert checkpoint.tokenizer.chat_template == "{{ a }}"

    (llama / "generation_config.json").unlink()
    (llama / "chat_template.jinja").write_text("{{ file }}")
    change_json(llama / "config.json", eos_token_id=None)
    named = [{"name": "tools", "template": "{{ t }}"}, {"name": "default", "template": "{{ d }}"}]
    (llama / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "chat_template": named}))
    checkpoint = load_checkpoint(llama)
    assert checkpoint.tokenizer.eos_ids == (EOS,)
    assert checkpoint.tokenizer.bos_id is None
    assert checkpoint.tokenizer.chat_template == "{{ file }}"
    (llama / "chat_template.jinja").unlink()
    assert load_checkpoint(llama).tokenizer.chat_template == "{{ d }}"


def test_begin_token_of_the_post_processor(llama: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    tokenizer.save(str(llama / "tokenizer.json"))
    loaded = load_checkpoint(llama).tokenizer
    assert loaded.bos_id == BOS
    assert BOS not in loaded.encode("the same text")


def test_stored_head_of_a_tied_model_is_left_out(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["llama-tied"][0], tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    save_file(tensors, folder / "model.safetensors")
    assert set(load_checkpoint(folder).tensors) == set(tensors) - {
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }


def test_content_hash_follows_every_file(llama: Path) -> None:
    first = load_checkpoint(llama).content_hash
    assert first == load_checkpoint(llama).content_hash
    seen = {first}
    tensors = load_file(llama / "model.safetensors")
    tensors["model.norm.weight"][3] += 1
    save_file(tensors, llama / "model.safetensors")
    seen.add(load_checkpoint(llama).content_hash)
    change_json(llama / "config.json", rms_norm_eps=1e-4)
    seen.add(load_checkpoint(llama).content_hash)
    change_json(llama / "tokenizer.json", version="1.0", truncation=None, padding=None, added_tokens=[])
    seen.add(load_checkpoint(llama).content_hash)
    assert len(seen) == 4
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in seen)


CONFIG_MISTAKES: list[tuple[dict[str, Any], str]] = [
    (
        {"architectures": ["GPT2LMHeadModel"]},
        "architecture GPT2LMHeadModel is not supported, expected one of Llama",
    ),
    ({"architectures": []}, "architecture none is not supported"),
    ({"architectures": "LlamaForCausalLM"}, "expected a list of strings"),
    ({"architectures": ["a\nb"]}, r"architecture 'a\\nb' is not supported"),
    ({"hidden_size": ...}, "hidden_size is missing, expected an integer"),
    ({"hidden_size": 63}, r"has shape \[300, 64\], expected \[300, 63\]"),
    ({"hidden_size": 10**9}, "hidden_size is 1000000000, expected 1 to"),
    ({"hidden_size": True}, "hidden_size is True, expected an integer"),
    ({"num_hidden_layers": 3}, "tensor model.layers.2.input_layernorm.weight is missing"),
    ({"num_hidden_layers": 1}, "tensor model.layers.1.* is not part of a LlamaForCausalLM model"),
    ({"num_hidden_layers": -1}, "num_layers is -1, expected 1 to"),
    ({"num_attention_heads": 0}, "num_heads is 0"),
    ({"num_key_value_heads": 3}, r"expected a multiple of num_kv_heads \(3\)"),
    ({"head_dim": 15}, "head_dim is 15, expected an even number"),
    ({"head_dim": 10**12}, "head_dim is 1000000000000, expected 1 to"),
    ({"vocab_size": 299}, "has 300 tokens, the model's vocabulary 299"),
    ({"vocab_size": 301}, r"has shape \[300, 64\], expected \[301, 64\]"),
    ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', expected a number"),
    ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
    ({"attention_bias": True}, "tensor model.layers.0.self_attn.k_proj.bias is missing"),
    ({"mlp_bias": True}, "tensor model.layers.0.mlp.down_proj.bias is missing"),
    ({"eos_token_id": 300}, "the eos token id is 300, expected 0 to 299"),
    ({"quantization_config": {"bits": 4}}, "quantized checkpoints are read as GGUF only"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differs between kinds of layers"),
    ({"rope_parameters": []}, "rope_parameters is \\[\\], expected an object"),
    ({"layer_types": ["linear_attention"]}, "layer_types holds an unknown kind"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, expected true or false"),
]


@pytest.mark.parametrize(("changes", "message"), CONFIG_MISTAKES)
def test_configuration_mistakes(llama: Path, changes: dict[str, Any], message: str) -> None:
    if (llama / "generation_config.json").exists():
        (llama / "generation_config.json").unlink()
    change_json(llama / "config.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(llama)
    assert str(llama) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_values_that_are_not_finite(llama: Path, name: str, value: float) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors[name].flat[5] = value
    save_file(tensors, llama / "model.safetensors")
    with pytest.raises(ModelError, match=f"tensor {name} holds values that are not finite"):
        load_checkpoint(llama)


def test_large_finite_values_are_fine(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.norm.weight"][:] = 3e38
    save_file(tensors, llama / "model.safetensors")
    assert load_checkpoint(llama).tensors["model.norm.weight"].data[0] == np.float32(3e38)


def test_unexpected_types_and_tensors(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    save_file({**tensors, "model.norm.weight": np.ones(64, np.int32)}, llama / "model.safetensors")
    with pytest.raises(ModelError, match=r"tensor model.norm.weight has the type 'I32', expected one of F32"):
        load_checkpoint(llama)
    save_file({**tensors, "extra\x1b": np.ones(4, np.float32)}, llama / "model.safetensors")
    with pytest.raises(ModelError, match=r"tensor 'extra\\x1b' is not part of"):
        load_checkpoint(llama)
    del tensors["lm_head.weight"]
    save_file(tensors, llama / "model.safetensors")
    with pytest.raises(ModelError, match=r"tensor lm_head.weight is missing"):
        load_checkpoint(llama)


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "model.safetensors"],
    ids=lambda name: str(name).replace(".", "-"),
)
def test_missing_and_cut_off_files(llama: Path, name: str) -> None:
    content = (llama / name).read_bytes().rstrip()
    (llama / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}.*is missing|holds neither {name}"):
        load_checkpoint(llama)
    for size in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 1):
        (llama / name).write_bytes(content[:size])
        with pytest.raises(ModelError, match=name):
            load_checkpoint(llama)


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "x.bin",
        7,
        None,
        "a\x00.safetensors",
    ],
)
def test_paths_in_the_index_are_refused(llama: Path, shard: Any) -> None:
    (llama / "model.safetensors").rename(llama.parent / "model.safetensors")
    (llama / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": shard}})
    )
    with pytest.raises(
        ModelError, match=r"tensor model.norm.weight is said to be in .*expected a .safetensors file"
    ):
        load_checkpoint(llama)


def test_index_and_shards_must_agree(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "one.safetensors")
    index = llama / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "two.safetensors"}}))
    with pytest.raises(ModelError, match=r"two.safetensors: is missing"):
        load_checkpoint(llama)
    index.write_text(json.dumps({"weight_map": {"model.other.weight": "one.safetensors"}}))
    with pytest.raises(ModelError, match=r"model.other.weight is missing, .* says that it is there"):
        load_checkpoint(llama)
    shutil.copy(llama / "one.safetensors", llama / "two.safetensors")
    index.write_text(
        json.dumps(
            {"weight_map": {"lm_head.weight": "one.safetensors", "model.norm.weight": "two.safetensors"}}
        )
    )
    with pytest.raises(ModelError, match=r"two.safetensors: tensor .* is in another shard, too"):
        load_checkpoint(llama)
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(ModelError, match="names 0 shards"):
        load_checkpoint(llama)


def test_vocabulary_of_the_fixture_is_whole(saved: dict[str, tuple[Path, Any]]) -> None:
    assert load_checkpoint(saved["llama"][0]).tokenizer.vocab_size == VOCABULARY
