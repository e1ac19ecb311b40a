"""Prompt lookup of OpenVINO GenAI: `prompt_lookup=True`, with the weights of 4 bits that `openvino.py` made."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
import openvino_tokenizers
from transformers import AutoTokenizer

from bench.peers.worker import Measured, main


class OpenVinoLookup(Measured):
    """`greedy` ends where the text does; times are those of passes, the prompt's first. `form`: tokens guessed."""

    def __init__(self, model: str, form: str, threads: int) -> None:
        task = json.loads(Path(model).read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            # It loads no model without a tokenizer, although it is given tokens.
            tokenizer = AutoTokenizer.from_pretrained(task["tokenizer"])
            models = openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=True)
            for name, converted in zip(("tokenizer", "detokenizer"), models, strict=True):
                ov.save_model(converted, Path(folder) / f"openvino_{name}.xml")
            own = openvino_genai.Tokenizer(folder)
        self._pipeline = openvino_genai.LLMPipeline(
            task["model"],
            own,
            "CPU",
            INFERENCE_NUM_THREADS=threads,
            **({"prompt_lookup": True} if int(form) else {}),
        )
        self._config = openvino_genai.GenerationConfig()
        self._config.do_sample = False
        self._config.stop_token_ids = set(task["ends"])
        self._config.eos_token_id = task["ends"][0]
        self._config.apply_chat_template = False
        if int(form):
            self._config.num_assistant_tokens, self._config.max_ngram_size = int(form), 2

    def about(self) -> dict[str, Any]:
        return {
            "version": f"openvino-genai {openvino_genai.__version__}",
            "settings": "LLMPipeline, 4 bits in groups of 32, longest n-gram of 2 tokens",
        }

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        self._config.max_new_tokens = count
        ids = ov.Tensor(np.array([text], np.int64))
        mask = ov.Tensor(np.ones((1, len(text)), np.int64))
        begin = time.perf_counter()
        result = self._pipeline.generate(openvino_genai.TokenizedInputs(ids, mask), self._config)
        total = (time.perf_counter() - begin) * 1000
        first = result.perf_metrics.get_ttft().mean
        return list(result.tokens[0]), [first, total - first]


if __name__ == "__main__":
    main(OpenVinoLookup)
