"""Prompt lookup of llama.cpp as llama-cpp-python has it: `LlamaPromptLookupDecoding`."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from bench.peers.worker import Measured, main


class LlamaCppLookup(Measured):
    """`greedy` ends where the text does; times are those between tokens, the prompt's first. `form`: tokens guessed."""

    def __init__(self, model: str, form: str, threads: int) -> None:
        task = json.loads(Path(model).read_text(encoding="utf-8"))
        self._ends = set(task["ends"])
        draft = LlamaPromptLookupDecoding(num_pred_tokens=int(form)) if int(form) else None
        self._llama = llama_cpp.Llama(
            task["model"],
            n_ctx=1024,
            n_batch=1024,
            n_threads=threads,
            n_threads_batch=threads,
            draft_model=draft,
            verbose=False,
        )

    def about(self) -> dict[str, Any]:
        return {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "settings": "native build, OpenMP, Llama.generate, the model's own file, longest n-gram of 2 tokens",
        }

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        # What the last request left in the cache would be used again: neither side is to have that.
        self._llama.reset()
        times = [time.perf_counter()]
        for token in self._llama.generate(list(text), temp=0.0, top_k=1):
            times.append(time.perf_counter())
            tokens.append(token)
            if token in self._ends or len(tokens) == count:
                break
        return tokens, [(b - a) * 1000 for a, b in pairwise(times)]


if __name__ == "__main__":
    main(LlamaCppLookup)
