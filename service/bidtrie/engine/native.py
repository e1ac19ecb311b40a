"""The embedded CPU engine: kernels/cpu, one call a step, the GIL released meanwhile."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bidtrie import _native
from bidtrie.engine.arguments import handles, int32, main_format, size, usable_cores, vector
from bidtrie.engine.base import Engine, EngineSpec
from bidtrie.engine.tree_batch import StepOutput, TreeBatch
from bidtrie.errors import EngineError

if TYPE_CHECKING:
    from bidtrie.models.checkpoint import Checkpoint


class NativeEngine(Engine):
    """Llama-family models on the CPU.

    Weights that a checkpoint holds as codes (GGUF's Q4_1 and Q8_0, an artefact's groups) stay as they are, and their
    linears take activations rounded to 8 bits in blocks of 32; float32 weights, and all of them with
    `weights="float32"`, are computed in float32. `kv` says how keys and values are kept: float16, float32, or auto,
    which is float16 where weights are codes.
    Logits are the same to the bit whatever else is in the batch, for any number of threads, however a chain is cut
    into steps, and for every instruction set.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint",
        *,
        threads: int | None = None,
        slots: int = 16384,
        max_nodes: int = 512,
        weights: str = "auto",
        kv: str = "auto",
        instruction_set: str | None = None,
    ) -> None:
        """`threads`: the calling one included; None: one per usable core. `instruction_set`: None: the best there is.

        Raises ModelError for a checkpoint that cannot be computed and EngineError for wrong options.
        """
        if weights not in ("auto", "float32"):
            raise EngineError(f'weights: "{weights}", expected auto or float32')
        if kv not in ("auto", "float16", "float32"):
            raise EngineError(f'kv: "{kv}", expected auto, float16 or float32')
        config = checkpoint.config
        used = "float32" if weights == "float32" else main_format(checkpoint)
        if kv == "auto":
            kv = "float32" if used == "float32" else "float16"
        self.threads = usable_cores() if threads is None else int32("threads", threads)
        self._engine = _native.Engine(
            config,
            dict(checkpoint.tensors),
            threads=self.threads,
            slots=size("slots", slots),
            max_nodes=size("max_nodes", max_nodes),
            dequantize=weights == "float32",
            half_kv=kv == "float16",
            instruction_set=instruction_set or "",
        )
        #: Which kernels run: "avx512", "avx2", "portable".
        self.instruction_set: str = self._engine.instruction_set
        computed_as = f"{checkpoint.content_hash} native {used} {kv}"
        self.spec = EngineSpec(
            name="native",
            model_hash=hashlib.sha256(computed_as.encode()).hexdigest()[:16],
            vocab_size=config.vocab_size,
            context_length=config.context_length,
            max_nodes=max_nodes,
            slots=slots,
            weights=used,
        )

    def open(self, share: int | None = None, length: int | None = None) -> int:
        sequence: int = self._engine.open(
            None if share is None else int32("sequence", share),
            None if length is None else int32("length", length),
        )
        return sequence

    def close(self, sequence: int) -> None:
        self._engine.close(int32("sequence", sequence))

    def length(self, sequence: int) -> int:
        length: int = self._engine.length(int32("sequence", sequence))
        return length

    def step(self, batch: TreeBatch) -> StepOutput:
        candidates = batch.candidates
        logsumexp = batch.logsumexp
        nodes, offsets, logits, sums = self._engine.step(
            vector("tokens", batch.tokens),
            vector("sequence", batch.sequence),
            vector("parent", batch.parent),
            vector("logits_for", batch.logits_for),
            None if candidates is None else vector("candidates.offsets", candidates.offsets),
            None if candidates is None else vector("candidates.ids", candidates.ids),
            None if logsumexp is None else vector("logsumexp", logsumexp, np.bool_).view(np.uint8),
        )
        return StepOutput(nodes, offsets, logits, sums)

    def commit(self, sequence: int, nodes: Sequence[int]) -> None:
        self._engine.commit(int32("sequence", sequence), handles(nodes))

    def keep(self, nodes: Sequence[int]) -> None:
        self._engine.keep(handles(nodes))

    def release(self, nodes: Sequence[int]) -> None:
        self._engine.release(handles(nodes))

    def free_slots(self) -> int:
        free: int = self._engine.free_slots()
        return free

    def shutdown(self) -> None:
        self._engine.shutdown()
