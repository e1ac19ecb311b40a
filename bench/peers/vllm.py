"""vLLM on the CPU, its engine in this process, so that a step is a call."""

import os
from collections.abc import Sequence
from typing import Any

# Read when vLLM is imported. What it compiles ahead of time it fails to load again, and compiles at every start.
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_AOT_COMPILE": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

import torch
import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams

from bench.peers.worker import Measured, main, milliseconds


class Vllm(Measured):
    def __init__(self, model: str, form: str, threads: int) -> None:
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=model, dtype=form, max_model_len=1024, max_num_seqs=1, enable_prefix_caching=False
            )
        )
        self._requests = 0

    def about(self) -> dict[str, Any]:
        return {
            "version": f"vllm {vllm.__version__}, torch {torch.__version__}",
            "settings": "compiled by torch, engine in the process, greedy sampling, nothing turned into text",
            "instruction_sets": torch.backends.cpu.get_cpu_capability(),
        }

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        self._requests += 1
        options = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
        self._engine.add_request(str(self._requests), {"prompt_token_ids": list(text)}, options)
        outputs: list[Any] = []
        times = []
        while self._engine.has_unfinished_requests():
            times.append(milliseconds(lambda: outputs.extend(self._engine.step())))
        return list(outputs[-1].outputs[0].token_ids), times[1:]


if __name__ == "__main__":
    main(Vllm)
