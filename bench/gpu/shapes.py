"""Models and formats that are measured on GPUs and predicted for them."""

from dataclasses import dataclass

from bidtrie.models.group_format import GroupFormat


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-family model as its linears see it."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int

    def linears(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of a layer's linears, merged as engines merge them."""
        attention = self.heads * self.head_size
        return {
            "qkv": (attention + 2 * self.kv_heads * self.head_size, self.hidden),
            "o": (self.hidden, attention),
            "gate_up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }


MODELS = (
    Shape("135M", 30, 576, 1536, 9, 3, 64, 49152),
    Shape("1.5B", 28, 1536, 8960, 12, 2, 128, 151936),
    Shape("8B", 32, 4096, 14336, 32, 8, 128, 128256),
)
FORMATS = {
    "int8-g128": GroupFormat(8, 128),
    "int4-g128": GroupFormat(4, 128),
    "int4-min-g32": GroupFormat(4, 32, minimum=True),
    "int4-table-g64": GroupFormat(4, 64, table=True),
    "2:4-int4-g64": GroupFormat(4, 64, pattern="2:4"),
    "1:4-int4-g64": GroupFormat(4, 64, pattern="1:4"),
}
