"""What a model recommends for serving: fitted when it was tuned, kept in its config.json under `bidtrie_serving`."""

from dataclasses import dataclass

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.fields import Fields

SERVING = "bidtrie_serving"


@dataclass(frozen=True, slots=True)
class ServingDefaults:
    """None: the model recommends nothing, and the service's own default holds.

    prior_weight      how much of the score under contexts that say nothing is subtracted
    retriever_weight  what the retriever's score counts beside the model's
    catalogs          names or versions of the catalogs that the model was tuned for: others are better off without it
    """

    prior_weight: float | None = None
    retriever_weight: float | None = None
    catalogs: tuple[str, ...] | None = None

    def fits(self, name: str, version: str) -> bool:
        """Whether the model says nothing of catalogs, or names this one."""
        return self.catalogs is None or name in self.catalogs or version in self.catalogs


def serving_defaults(checkpoint: Checkpoint) -> ServingDefaults:
    """What the checkpoint recommends. Raises ModelError for a recommendation that is out of range."""
    config = Fields(f"{checkpoint.name}: config.json", checkpoint.huggingface_config or {})
    fields = config.section(SERVING)
    fields.expect_only("prior_weight", "retriever_weight", "catalogs")

    def weight(key: str) -> float | None:
        if key not in fields:
            return None
        value = fields.number(key)
        if not 0.0 <= value <= 100.0:
            raise ModelError(f"{fields.source}: {key} is {value:g}, expected 0 to 100")
        return value

    catalogs = tuple(fields.texts("catalogs")) if "catalogs" in fields else None
    return ServingDefaults(weight("prior_weight"), weight("retriever_weight"), catalogs)
