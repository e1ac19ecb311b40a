"""A checkpoint out of a Hugging Face directory: config.json, safetensors and tokenizer.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.config import LIMITS, ModelConfig
from bidtrie.models.fields import Fields, printable
from bidtrie.models.layout import HEAD, check_shapes, check_values, required_biases
from bidtrie.models.rope import inverse_frequencies
from bidtrie.models.safetensors_file import SafetensorsEntry, read_safetensors
from bidtrie.models.tensor import Tensor
from bidtrie.models.tokenizer import Tokenizer

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_JSON = 1 << 27
_MAX_SHARDS = 1000
#: Buffers that old checkpoints store though they follow from the configuration.
_DERIVED = ".rotary_emb.inv_freq"
#: What transformers takes for a key that is absent (a null means that there is no window).
_MISTRAL_WINDOW = 4096
_QWEN3_HEAD_DIM = 128


def read_huggingface_checkpoint(path: Path, name: str) -> Checkpoint:
    """Read a directory of the Llama family. Raises ModelError naming the file and what is wrong in it."""
    digest = hashlib.blake2b(digest_size=8)
    fields = Fields(str(path / "config.json"), _json(path / "config.json", digest))
    architecture = _architecture(fields)
    entries = _entries(path, digest)
    tokenizer = _tokenizer(path, fields, digest)
    config = _config(fields, architecture, tokenizer)
    if problem := config.problem():
        raise ModelError(f"{fields.source}: {problem}")
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"{path / 'tokenizer.json'}: has {tokenizer.vocab_size} tokens, the model's vocabulary {config.vocab_size}"
        )
    if config.tie_word_embeddings:
        entries.pop(HEAD, None)
    check_shapes(
        str(path),
        config,
        {key: entry.shape for key, entry in entries.items()},
        _required_biases(fields, config),
    )
    tensors = {key: Tensor("float32", entry.shape, entry.to_float32()) for key, entry in entries.items()}
    check_values(str(path), tensors)
    return Checkpoint(
        name, config, digest.hexdigest(), tensors, tokenizer, fields.text("license", "") or None
    )


def _read(path: Path, digest: hashlib.blake2b) -> bytes:
    if path.stat().st_size > _MAX_JSON:
        raise ModelError(f"{path}: has {path.stat().st_size} bytes, expected at most {_MAX_JSON}")
    content = path.read_bytes()
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
    return content


def _json(path: Path, digest: hashlib.blake2b, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is optional and absent."""
    if not path.is_file():
        if optional:
            return {}
        raise ModelError(f"{path}: is missing")
    try:
        value = json.loads(_read(path, digest).decode("utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: is not JSON (cut off?)") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: is not a JSON object")
    return value


def _architecture(fields: Fields) -> str:
    names = fields.texts("architectures")
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        shown = ", ".join(printable(name) for name in names[:3])
        raise ModelError(
            f"{fields.source}: architecture {shown or 'none'} is not supported, "
            f"expected one of {', '.join(ARCHITECTURES)}"
        )
    if "quantization_config" in fields:
        raise ModelError(
            f"{fields.source}: quantization_config is set: quantized checkpoints are read as GGUF only"
        )
    if (act := fields.text("hidden_act", "silu")) != "silu":
        raise ModelError(f"{fields.source}: hidden_act is {act!r}, expected 'silu'")
    return names[0]


def _config(fields: Fields, architecture: str, tokenizer: Tokenizer) -> ModelConfig:
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    default_head_dim = _QWEN3_HEAD_DIM if architecture == "Qwen3ForCausalLM" else hidden // max(heads, 1)
    head_dim = fields.integer("head_dim", default_head_dim)
    if not 1 <= head_dim <= LIMITS["head_dim"]:
        raise ModelError(f"{fields.source}: head_dim is {head_dim}, expected 1 to {LIMITS['head_dim']}")
    context = fields.integer("max_position_embeddings")
    inv_freq, attention_factor = inverse_frequencies(_rope(fields), head_dim, context)
    window = _window(fields, architecture)
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        inv_freq=inv_freq,
        attention_factor=attention_factor,
        context_length=context if window is None else min(context, window),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        qk_norm=architecture == "Qwen3ForCausalLM",
        bos_token_id=tokenizer.bos_id,
        eos_token_ids=tokenizer.eos_ids,
    )


def _rope(fields: Fields) -> Fields:
    """Rotary settings in one object: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5."""
    own = fields.section("rope_scaling" if "rope_scaling" in fields else "rope_parameters")
    if any(isinstance(value, dict) for value in own.values.values()):
        raise ModelError(f"{own.source}: differs between kinds of layers, which is not supported")
    outer = {
        key: fields.values[key]
        for key in ("rope_theta", "partial_rotary_factor")
        if key in fields and key not in own
    }
    # The one key that goes before the inner one in transformers.
    if "original_max_position_embeddings" in fields:
        outer["original_max_position_embeddings"] = fields.values["original_max_position_embeddings"]
    return Fields(own.source, {**own.values, **outer})


def _window(fields: Fields, architecture: str) -> int | None:
    """The sliding window: within it windowed and full attention are the same, so the context is capped to it."""
    if any(kind not in ("full_attention", "sliding_attention") for kind in fields.texts("layer_types", [])):
        raise ModelError(
            f"{fields.source}: layer_types holds an unknown kind, expected full_attention or sliding_attention"
        )
    if architecture == "MistralForCausalLM":
        if "sliding_window" not in fields.values:
            return _MISTRAL_WINDOW
        return fields.integer("sliding_window") if "sliding_window" in fields else None
    if architecture.startswith("Qwen") and fields.flag("use_sliding_window", False):
        return fields.integer("sliding_window", _MISTRAL_WINDOW)
    return None


def _required_biases(fields: Fields, config: ModelConfig) -> frozenset[str]:
    if config.architecture == "Qwen2ForCausalLM":
        return required_biases(config, qkv=True, output=False, mlp=False)
    attention = fields.flag("attention_bias", False)
    return required_biases(config, qkv=attention, output=attention, mlp=fields.flag("mlp_bias", False))


def _entries(path: Path, digest: hashlib.blake2b) -> dict[str, SafetensorsEntry]:
    """All tensors of the single file, or of the shards that the index names."""
    if (path / _WEIGHTS).is_file():
        shards: dict[str, list[str]] = {_WEIGHTS: []}
    elif (path / _INDEX).is_file():
        shards = _shards(path / _INDEX, digest)
    else:
        raise ModelError(
            f"{path}: holds neither {_WEIGHTS} nor {_INDEX} (weights are read from safetensors only)"
        )
    entries: dict[str, SafetensorsEntry] = {}
    for file, wanted in shards.items():
        if not (path / file).is_file():
            raise ModelError(f"{path / file}: is missing, {_INDEX} names it")
        found, whole = read_safetensors(path / file)
        digest.update(len(whole).to_bytes(8, "little"))
        digest.update(whole.data)
        for name in wanted:
            if name not in found:
                raise ModelError(
                    f"{path / file}: tensor {printable(name)} is missing, {_INDEX} says that it is there"
                )
        for name, entry in found.items():
            if name in entries:
                raise ModelError(f"{path / file}: tensor {printable(name)} is in another shard, too")
            entries[name] = entry
    return {name: entry for name, entry in entries.items() if not name.endswith(_DERIVED)}


def _shards(index: Path, digest: hashlib.blake2b) -> dict[str, list[str]]:
    """The tensors of each shard. Shards are files of the same folder: a path in the index is an error."""
    weight_map = Fields(str(index), _json(index, digest)).section("weight_map").values
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if (
            not isinstance(file, str)
            or not file.endswith(".safetensors")
            or Path(file).name != file
            or "\0" in file
        ):
            raise ModelError(
                f"{index}: tensor {printable(name)} is said to be in {file!r:.80}, expected a .safetensors file's name"
            )
        shards.setdefault(file, []).append(name)
    if not 1 <= len(shards) <= _MAX_SHARDS:
        raise ModelError(f"{index}: names {len(shards)} shards, expected 1 to {_MAX_SHARDS}")
    return dict(sorted(shards.items()))


def _tokenizer(path: Path, config: Fields, digest: hashlib.blake2b) -> Tokenizer:
    file = path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{file}: is missing (a tokenizer.model alone is not read)")
    try:
        text = _read(file, digest).decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{file}: is not UTF-8") from None
    settings_file = path / "tokenizer_config.json"
    settings = Fields(str(settings_file), _json(settings_file, digest, optional=True))
    generation_file = path / "generation_config.json"
    generation = Fields(str(generation_file), _json(generation_file, digest, optional=True))
    tokenizer = Tokenizer.from_json(
        text, source=str(file), chat_template=_chat_template(path, settings, digest)
    )
    eos = generation.integers("eos_token_id", config.integers("eos_token_id", []))
    if not eos and (token := _named_token(settings, "eos_token", tokenizer)) is not None:
        eos = [token]
    bos = tokenizer.added_first
    if bos is None and settings.flag("add_bos_token", False):
        bos = _named_token(settings, "bos_token", tokenizer)
    return tokenizer.with_ends(bos_id=bos, eos_ids=eos)


def _named_token(settings: Fields, key: str, tokenizer: Tokenizer) -> int | None:
    """The id of a token that tokenizer_config.json names, as text or as an object with `content`."""
    value = settings.values.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    return tokenizer.token_id(content) if isinstance(content, str) else None


def _chat_template(path: Path, settings: Fields, digest: hashlib.blake2b) -> str | None:
    """The default chat template: a file of its own, else in tokenizer_config.json, alone or among named ones."""
    file = path / "chat_template.jinja"
    if file.is_file():
        try:
            return _read(file, digest).decode("utf-8")
        except UnicodeDecodeError:
            raise ModelError(f"{file}: is not UTF-8") from None
    value = settings.values.get("chat_template")
    if isinstance(value, list):
        value = next(
            (
                item.get("template")
                for item in value
                if isinstance(item, dict) and item.get("name") == "default"
            ),
            None,
        )
    return value if isinstance(value, str) else None
