"""vLLM's workers with a model in them: one in this process, or one a GPU in processes of their own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from bidtrie.engine.tree_batch import Float32
from bidtrie.engine.vllm.shard import check_shards
from bidtrie.engine.vllm.step_input import StepInput
from bidtrie.errors import EngineError, EngineLost, ModelError

if TYPE_CHECKING:
    from bidtrie.models.checkpoint import Checkpoint

#: What runs the processes of a model that is spread over several GPUs: of this machine, or of a Ray cluster.
Launcher = Literal["mp", "ray"]
#: A step that takes longer has hung.
_STEP_TIMEOUT_S = 120.0


class Workers:
    """Loads a Hugging Face directory or an artefact with vLLM and computes steps on it.

    vLLM's executor places the workers, sets up their communication and loads the weights, sharded; its scheduler and
    its block cache are not used.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: "Checkpoint",
        *,
        max_nodes: int,
        threads: int,
        tensor_parallel: int = 1,
        launcher: Launcher = "mp",
        dequantize: bool = False,
    ) -> None:
        """`checkpoint` is what `folder` holds; `threads` are each worker's on the CPU.

        Raises ModelError where the model cannot be spread over the GPUs, or vLLM cannot load it, naming why.
        """
        check_shards(checkpoint.tensors, tensor_parallel)
        # Two teams of threads that wait for each other by spinning need ten times as long: on the CPU either ours
        # computes products, of codes, or PyTorch's does.
        coded = checkpoint.compression is not None and not dequantize
        torch_threads, self._threads = (1, threads) if coded else (threads, 1)
        # vLLM's lines go where the service's go, and it phones nobody.
        os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # The kernels have threads of their own, which may not all be bound to one core.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # Workers that are processes of their own read it as they start; this process has started long ago.
        os.environ["OMP_NUM_THREADS"] = str(torch_threads)

        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.executor.abstract import Executor
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        from bidtrie.engine.vllm import plugin
        from bidtrie.engine.vllm.quantization import DEQUANTIZE

        plugin.register()
        on_cpu = current_platform.is_cpu()
        if on_cpu and tensor_parallel == 1 and torch.get_num_threads() != torch_threads:
            torch.set_num_threads(torch_threads)
        try:
            config = EngineArgs(
                model=str(folder),
                skip_tokenizer_init=True,
                # The CPU's kernels take float32.
                dtype="float32" if on_cpu else "auto",
                max_model_len=checkpoint.config.context_length,
                max_num_batched_tokens=max(max_nodes, checkpoint.config.context_length),
                max_num_seqs=1,
                # Trees have every shape there is: nothing could be compiled or captured ahead.
                enforce_eager=True,
                # Of the block cache, which is never made.
                kv_cache_memory_bytes=1,
                tensor_parallel_size=tensor_parallel,
                # "uni" as a name would become a process of its own on the CPU.
                distributed_executor_backend=UniProcExecutor if tensor_parallel == 1 else launcher,
                worker_extension_cls="bidtrie.engine.vllm.worker.TreeWorker",
                additional_config={DEQUANTIZE: dequantize},
                use_tqdm_on_load=False,
                disable_log_stats=True,
                seed=0,
            ).create_engine_config()
            self._executor: Any = Executor.get_class(config)(config)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{folder}: vLLM cannot load it: {_reason(error)}") from error
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")

    def prepare(self, slots: int) -> str:
        """Make KV caches of so many slots, in place of those before; returns what computes, for people."""
        devices: list[str] = self._call("bidtrie_prepare", slots, self._threads)
        return devices[0]

    def step(self, step: StepInput) -> tuple[Float32, Float32]:
        """The wanted logits and log-sum-exps. Raises EngineLost if a worker has failed or died."""
        answers: list[tuple[Float32, Float32] | None] = self._call("bidtrie_step", step)
        for answer in answers:
            if answer is not None:
                return answer
        raise EngineLost("no worker of vLLM answered")

    def shutdown(self) -> None:
        """End the workers. May be called again."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _call(self, method: str, *arguments: Any) -> Any:
        if self._executor is None:
            raise EngineError("the engine has been shut down")
        try:
            return self._executor.collective_rpc(method, timeout=_STEP_TIMEOUT_S, args=arguments)
        except Exception as error:
            raise EngineLost(f"a worker of vLLM failed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The first words that an error has, or its kind where it has none (a worker that died)."""
    return str(error).strip() or type(error).__name__
