"""The interface between everything that searches or decodes and whatever computes the model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from bidtrie.engine.tree_batch import StepOutput, TreeBatch


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What callers may rely on. Sizes are in tokens (= nodes = KV slots)."""

    name: str
    """Which engine: "native", "vllm"."""
    model_hash: str
    """Identifies the weights as computed (checkpoint and weight format), for cache keys and priors."""
    vocab_size: int
    context_length: int
    """Longest prefix plus path."""
    max_nodes: int
    """Most nodes in one step."""
    slots: int
    """KV slots in all."""
    weights: str
    """Weight format, for people: "float32", "q4_1"."""


class Engine(ABC):
    """Computes tree batches over sequences whose KV it caches.

    Life of a node: `step` computes it and returns its handle. It lives until the next `step`, unless it is kept
    (then until `release`, even when its parents are not kept: what it needs stays) or committed (its KV joins the
    prefix and the handle is gone). A committed path starts at the prefix's end; every node of the sequence that does
    not descend from the path's last node is dropped, those that do stay what they were. Only kept nodes can be
    parents in a later step. Using a handle after its life raises EngineError, and so does any wrong call; a call that
    raises has changed nothing.

    A prefix's last token is always fed again as a node when its logits are wanted: cached KV holds no logits.

    An engine belongs to one thread at a time. Logits do not depend, to the bit, on what else is in the batch,
    on the number of threads or on how a chain is cut into steps, unless the engine's documentation says otherwise.
    """

    spec: EngineSpec

    @property
    def lost(self) -> bool:
        """Whether every call raises EngineLost from now on: what computed has died. Any thread may ask."""
        return False

    @abstractmethod
    def open(self, share: int | None = None, length: int | None = None) -> int:
        """A new sequence: empty, or sharing the first `length` (default: all) committed tokens of `share`.

        What is shared is neither copied nor computed again, and outlives the sequence that it came from.
        """

    @abstractmethod
    def close(self, sequence: int) -> None:
        """End a sequence; its nodes are dropped, and its prefix unless another sequence shares it."""

    @abstractmethod
    def length(self, sequence: int) -> int:
        """Committed tokens of a sequence."""

    @abstractmethod
    def step(self, batch: TreeBatch) -> StepOutput:
        """Compute a batch. Raises OutOfSlots when its nodes do not fit into the KV cache."""

    @abstractmethod
    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        """Append a path of nodes, from a child of the prefix's end downwards, to the sequence's prefix."""

    @abstractmethod
    def keep(self, nodes: Sequence[int]) -> None:
        """Let nodes of the last step live beyond the next one."""

    @abstractmethod
    def release(self, nodes: Sequence[int]) -> None:
        """End the life of kept nodes (their descendants that are kept stay usable)."""

    @abstractmethod
    def free_slots(self) -> int:
        """KV slots for new nodes; nodes of the last step that are neither kept nor committed count as free."""

    def shutdown(self) -> None:  # noqa: B027 (an engine without threads has nothing to stop)
        """Stop threads and free memory; the engine is unusable afterwards."""
