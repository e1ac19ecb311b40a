"""vLLM on the CPU choosing a path by structured output (`choice`), its engine in this process."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# First: it sets what vLLM reads when it is imported.
import bench.peers.vllm  # noqa: F401  # isort: skip

import torch
import vllm
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from bench.peers.worker import Measured, main, milliseconds


class VllmTargeting(Measured):
    """`greedy` gives the path's tokens, its end included, and two times: the whole call's, and its part before steps.

    A text may be ended by the newline, as ours is: vLLM lets the grammar end in any of the request's stop tokens.
    """

    def __init__(self, model: str, form: str, threads: int) -> None:
        task = json.loads(Path(model).read_text(encoding="utf-8"))
        self._form = form
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=task["model"],
                dtype=form,
                max_model_len=1024,
                max_num_seqs=1,
                enable_prefix_caching=True,
            )
        )
        self._requests = 0
        plain = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, detokenize=False)
        for _ in range(2):
            self._complete(task["warm_up"], plain)
        self._options = SamplingParams(
            temperature=0,
            max_tokens=128,
            stop_token_ids=[task["end"]],
            detokenize=False,
            structured_outputs=StructuredOutputsParams(
                choice=[text.removesuffix("\n") for text in task["texts"]]
            ),
        )
        self._first_ms = self.greedy(task["warm_up"], 128)[1][0]
        self._second_ms = self.greedy(task["warm_up"], 128)[1][0]

    def about(self) -> dict[str, Any]:
        return {
            "version": f"vllm {vllm.__version__}, torch {torch.__version__}",
            "settings": "compiled by torch, engine in the process, greedy sampling, nothing turned into text",
            "instruction_sets": torch.backends.cpu.get_cpu_capability(),
            "constraint": "structured output, choice of all texts, vLLM's own choice of backend",
            "prompt_cache": "prefix caching on",
            "dtype": self._form,
            "grammar_ms": self._first_ms - self._second_ms,
        }

    def _complete(self, text: Sequence[int], options: SamplingParams) -> tuple[list[int], list[float]]:
        self._requests += 1
        outputs: list[Any] = []
        prompt = {"prompt_token_ids": list(text)}
        added = milliseconds(lambda: self._engine.add_request(str(self._requests), prompt, options))

        def steps() -> None:
            while self._engine.has_unfinished_requests():
                outputs.extend(self._engine.step())

        stepped = milliseconds(steps)
        return list(outputs[-1].outputs[0].token_ids), [added + stepped, added]

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        return self._complete(text, self._options)

    def plain(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        options = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
        return self._complete(text, options)


if __name__ == "__main__":
    main(VllmTargeting)
