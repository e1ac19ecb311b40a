"""Which tensors a model of the Llama family has, and of what shape, by their Hugging Face names."""

from collections.abc import Mapping

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import AnyTensor
from bidtrie.models.config import ModelConfig
from bidtrie.models.fields import printable

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each required tensor of one layer, by its name below `model.layers.N.`."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.qk_norm:
        shapes |= {
            "self_attn.q_norm.weight": (config.head_dim,),
            "self_attn.k_norm.weight": (config.head_dim,),
        }
    return shapes


def required_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that the model cannot do without."""
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocab_size, config.hidden_size),
        FINAL_NORM: (config.hidden_size,),
    }
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocab_size, config.hidden_size)
    layer = layer_shapes(config)
    for n in range(config.num_layers):
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in layer.items()}
    return shapes


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Rows and columns of each weight that is multiplied with, and of the embedding, by its module's name."""
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in required_shapes(config).items()
        if len(shape) == 2
    }


def is_head(linear: str) -> bool:
    """Whether a module of `linear_shapes` is the embedding or the output head, which are counted apart from layers."""
    return f"{linear}.weight" in (EMBEDDING, HEAD)


def bias_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every bias that the model may have."""
    biases = {
        f"{name.removesuffix('.weight')}.bias": shape[:1]
        for name, shape in layer_shapes(config).items()
        if name.endswith("_proj.weight")
    }
    return {
        f"model.layers.{n}.{name}": shape for n in range(config.num_layers) for name, shape in biases.items()
    }


def required_biases(config: ModelConfig, *, qkv: bool, output: bool, mlp: bool) -> frozenset[str]:
    """Names of the biases that an architecture or its configuration calls for."""
    modules = [
        *(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] if qkv else []),
        *(["self_attn.o_proj"] if output else []),
        *(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] if mlp else []),
    ]
    return frozenset(
        f"model.layers.{n}.{module}.bias" for n in range(config.num_layers) for module in modules
    )


def check_shapes(
    source: str, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], biases: frozenset[str]
) -> None:
    """Raise ModelError unless the tensors are those that the configuration asks for, in its shapes.

    `biases` are required; other biases may be there. A tensor that is not known is an error: what it would have
    computed would be left out silently.
    """
    required, allowed = required_shapes(config), bias_shapes(config)
    for name in [*required, *sorted(biases)]:
        if name not in shapes:
            raise ModelError(f"{source}: tensor {name} is missing")
    for name, shape in shapes.items():
        expected = required.get(name) or allowed.get(name)
        if expected is None:
            raise ModelError(
                f"{source}: tensor {printable(name)} is not part of a {config.architecture} model of this configuration"
            )
        if shape != expected:
            raise ModelError(f"{source}: tensor {name} has shape {list(shape)}, expected {list(expected)}")


def check_values(source: str, tensors: Mapping[str, AnyTensor]) -> None:
    """Raise ModelError if a vector (norm or bias) is in a block format, or a value is not finite."""
    for name, tensor in tensors.items():
        if len(tensor.shape) == 1 and tensor.format != "float32":
            raise ModelError(f"{source}: tensor {name} has format {tensor.format}, expected floating point")
        if not tensor.is_finite():
            raise ModelError(f"{source}: tensor {name} holds values that are not finite")
