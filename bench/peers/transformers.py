"""Hugging Face transformers, eager, with its own cache: the usual yardstick, float weights."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

from bench.peers.worker import Measured, main, milliseconds


class Transformers(Measured):
    def __init__(self, model: str, form: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, form)).eval()

    def about(self) -> dict[str, Any]:
        return {
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "settings": "eager, scaled dot product attention, dynamic cache, logits of the last token only",
            "instruction_sets": torch.backends.cpu.get_cpu_capability(),
        }

    @torch.inference_mode()
    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        cache = DynamicCache(config=self._model.config)
        tokens: list[int] = []

        def step(new: Sequence[int] | None = None) -> None:
            ids = torch.tensor([new or tokens[-1:]])
            logits = self._model(ids, past_key_values=cache, logits_to_keep=1).logits
            tokens.append(int(logits[0, -1].argmax()))

        step(text)
        times = [milliseconds(step) for _ in range(count - 1)]
        return tokens, times


if __name__ == "__main__":
    main(Transformers)
