"""The peers, each in the formats that it is measured in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """One peer in one format."""

    peer: str
    """Its module in this package, and its environment."""
    form: str
    source: str = "huggingface"
    """What it is converted from: "gguf" (the model's own file) or "huggingface" (a directory of its weights)."""
    group: int | None = None
    """Weights that share a scale, for weights of 4 bits; None for float ones."""
    converted: str = ""
    """What the converted model is called; empty where the peer loads the source as it is."""

    @property
    def name(self) -> str:
        """As the figures call it."""
        return f"{self.peer}_{self.form}"

    @property
    def four_bit(self) -> bool:
        """Whether it is one of those that ours is compared with; the others only decode."""
        return self.group is not None


VARIANTS = (
    Variant("llama_cpp", "q4_0", "gguf", 32, "q4_0.gguf"),
    Variant("llama_cpp", "q4_0_head4", "gguf", 32, "q4_0_head4.gguf"),
    Variant("llama_cpp", "q4_1", "gguf", 32, "q4_1.gguf"),
    Variant("llama_cpp", "q4_k_m", "gguf", 32, "q4_k_m.gguf"),
    Variant("onnxruntime", "int4", group=32, converted="onnxruntime-int4"),
    Variant("onnxruntime", "int4_g128", group=128, converted="onnxruntime-int4-g128"),
    Variant("openvino", "int4", group=32, converted="openvino-int4"),
    Variant("openvino", "int4_g64", group=64, converted="openvino-int4-g64"),
    Variant("transformers", "float32"),
    Variant("transformers", "bfloat16"),
    Variant("vllm", "bfloat16"),
)
PEERS = tuple(dict.fromkeys(variant.peer for variant in VARIANTS))
