"""Prompt lookup of transformers: `prompt_lookup_num_tokens`, its own `generate`, float32 weights."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation import BaseStreamer

from bench.peers.transformers import Transformers
from bench.peers.worker import main


class _Arrivals(BaseStreamer):  # type: ignore[misc]
    """When tokens arrive; the prompt comes first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class TransformersLookup(Transformers):
    """`greedy` ends where the text does; times are those of passes, the prompt's first. `form`: tokens guessed."""

    def __init__(self, model: str, form: str, threads: int) -> None:
        task = json.loads(Path(model).read_text(encoding="utf-8"))
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32).eval()
        self._ends = task["ends"]
        self._lookup = {"prompt_lookup_num_tokens": int(form)} if int(form) else {}

    def about(self) -> dict[str, Any]:
        return super().about() | {"settings": "generate, float32, dynamic cache, longest n-gram of 2 tokens"}

    @torch.inference_mode()
    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        arrivals = _Arrivals()
        begin = time.perf_counter()
        output = self._model.generate(
            torch.tensor([list(text)]),
            attention_mask=torch.ones(1, len(text), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
            streamer=arrivals,
            **self._lookup,
        )
        times = [begin, *arrivals.times[1:]]
        passes = [(b - a) * 1000 for a, b in pairwise(times)]
        return output[0, len(text) :].tolist(), passes


if __name__ == "__main__":
    main(TransformersLookup)
