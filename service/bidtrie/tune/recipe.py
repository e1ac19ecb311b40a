"""How a model is tuned: everything that changes the result but the data."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from bidtrie.errors import InvalidInput
from bidtrie.tune.targeting_examples import Shares


class Method(StrEnum):
    """Which weights learn."""

    LORA = "lora"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a run.

    learning_rate      of AdamW at its height: a short linear rise, then a cosine down to a tenth
    epochs             times through all pairs
    pack_tokens        tokens of a sequence, which is one optimizer step
    likelihood_weight  of plain likelihood beside the trie-normalised loss of targeting
    creative_weight    of creatives' loss a pair beside targeting's
    label_smoothing    of the trie-normalised loss
    retriever_weight   of the retriever's score, in the pages that are learned beside it
    evaluate_every     steps between two looks at the held-out pairs
    patience           looks without a better loss after which the run ends
    bfloat16           activations and products in bfloat16 (weights that learn stay float32)
    """

    method: Method = Method.LORA
    rank: int = 8
    learning_rate: float = 5e-4
    epochs: int = 3
    pack_tokens: int = 1024
    likelihood_weight: float = 0.1
    creative_weight: float = 1.0
    label_smoothing: float = 0.05
    retriever_weight: float = 1.5
    max_context_tokens: int = 128
    evaluate_every: int = 100
    patience: int = 4
    weight_decay: float = 0.01
    bfloat16: bool = False
    seed: int = 0
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        """Raises InvalidInput naming the flag that is out of range."""
        ranges: dict[str, tuple[float, float]] = {
            "rank": (1, 512),
            "learning_rate": (1e-9, 1.0),
            "epochs": (1, 1000),
            "pack_tokens": (64, 1 << 16),
            "likelihood_weight": (0.0, 100.0),
            "creative_weight": (0.0, 100.0),
            "label_smoothing": (0.0, 0.9),
            "retriever_weight": (0.0, 100.0),
            "evaluate_every": (1, 1 << 20),
            "patience": (1, 1000),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                flag = f"--{name.replace('_', '-')}"
                raise InvalidInput.of(flag, f"{getattr(self, name):g}, expected {low:g} to {high:g}")

    def to_json(self) -> dict[str, Any]:
        """The settings for a JSON object."""
        return asdict(self) | {"method": self.method.value}
