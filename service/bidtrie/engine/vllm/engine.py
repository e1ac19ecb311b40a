"""The engine on vLLM: its models and workers compute; the nodes' lives are kept as the native engine keeps them."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bidtrie._native import KvTree
from bidtrie.engine.arguments import handles, int32, main_format, size, vector
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.engine.vllm.step_input import StepInput
from bidtrie.engine.vllm.workers import Workers
from bidtrie.errors import EngineError, EngineLost

if TYPE_CHECKING:
    from bidtrie.models.checkpoint import Checkpoint


class VllmEngine(Engine):
    """Models that both vLLM and bidtrie's reader know: the Llama family.

    A tree batch is one forward pass of vLLM's model, in which every node attends to its own list of KV slots. Prefixes
    are shared, nodes kept and paths committed by moving slots between lists: no keys or values are copied or computed
    again.

    Logits depend on what else is in the batch, by float error: BLAS and vLLM's kernels choose their order of sums by
    the batch's size, and where activations are rounded to 8 bits that error may move one to the next code.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint",
        workers: Workers,
        *,
        slots: int = 16384,
        max_nodes: int = 512,
        weights: str = "auto",
    ) -> None:
        """`workers` have loaded the checkpoint's folder, dequantized if `weights` is "float32"; the engine ends them.

        Raises EngineError for wrong sizes.
        """
        config = checkpoint.config
        used = "float32" if weights == "float32" else main_format(checkpoint)
        self._tree: KvTree | None = KvTree(
            config.vocab_size, config.context_length, size("slots", slots), size("max_nodes", max_nodes)
        )
        self._workers = workers
        #: What computes: "cpu-avx2", "cuda-NVIDIA-H100".
        self.device = workers.prepare(slots)
        self._failure: EngineLost | None = None
        computed_as = f"{checkpoint.content_hash} vllm {used} {workers.dtype}"
        self.spec = EngineSpec(
            name="vllm",
            model_hash=hashlib.sha256(computed_as.encode()).hexdigest()[:16],
            vocab_size=config.vocab_size,
            context_length=config.context_length,
            max_nodes=max_nodes,
            slots=slots,
            weights=used,
        )

    @property
    def lost(self) -> bool:
        return self._failure is not None

    @property
    def _nodes(self) -> KvTree:
        if self._failure is not None:
            raise EngineLost(str(self._failure)) from self._failure
        if self._tree is None:
            raise EngineError("the engine has been shut down")
        return self._tree

    def open(self, share: int | None = None, length: int | None = None) -> int:
        sequence: int = self._nodes.open(
            None if share is None else int32("sequence", share),
            None if length is None else int32("length", length),
        )
        return sequence

    def close(self, sequence: int) -> None:
        self._nodes.close(int32("sequence", sequence))

    def length(self, sequence: int) -> int:
        length: int = self._nodes.length(int32("sequence", sequence))
        return length

    def step(self, batch: TreeBatch) -> StepOutput:
        tokens, rows = vector("tokens", batch.tokens), vector("logits_for", batch.logits_for)
        candidates, logsumexp = batch.candidates, batch.logsumexp
        nodes, slots, positions, *view = self._nodes.step(
            tokens,
            vector("sequence", batch.sequence),
            vector("parent", batch.parent),
            rows,
            None if candidates is None else vector("candidates.offsets", candidates.offsets),
            None if candidates is None else vector("candidates.ids", candidates.ids),
            None if logsumexp is None else vector("logsumexp", logsumexp, np.bool_).view(np.uint8),
        )
        step = StepInput(
            tokens,
            positions,
            slots,
            tuple(view),
            rows,
            np.zeros(len(rows) + 1, np.int32) if candidates is None else candidates.offsets,
            np.empty(0, np.int32) if candidates is None else candidates.ids,
            np.zeros(len(rows), np.bool_) if logsumexp is None else logsumexp,
        )
        sizes = np.diff(step.candidate_offsets).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.where(sizes == 0, self.spec.vocab_size, sizes))]).astype(
            np.int64
        )
        if not len(tokens):
            return StepOutput(nodes, offsets, np.empty(0, np.float32), np.empty(0, np.float32))
        try:
            logits, sums = self._workers.step(step)
        except EngineLost as error:
            # Its nodes have been placed but not computed: nothing that follows could be right.
            self._failure = error
            raise
        return StepOutput(nodes, offsets, logits, sums)

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        self._nodes.commit(int32("sequence", sequence), handles(nodes))

    def keep(self, nodes: Sequence[int]) -> None:
        self._nodes.keep(handles(nodes))

    def release(self, nodes: Sequence[int]) -> None:
        self._nodes.release(handles(nodes))

    def free_slots(self) -> int:
        free: int = self._nodes.free_slots()
        return free

    def shutdown(self) -> None:
        self._tree = None
        self._workers.shutdown()
