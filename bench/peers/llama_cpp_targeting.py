"""llama.cpp choosing a path under a grammar, through its C interface, as its own server does it.

The likeliest token is tried first; only where the grammar refuses it is the grammar applied to the whole vocabulary
(`common_sampler_sample` of llama.cpp). What a prompt begins with like the one before stays in the cache.
"""

import ctypes
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from bench.peers.llama_cpp import LlamaCpp
from bench.peers.worker import main, milliseconds

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class LlamaCppTargeting(LlamaCpp):
    """`greedy` gives the path's tokens, its end included, and one time: of the whole call."""

    def __init__(self, model: str, form: str, threads: int) -> None:
        task = json.loads(Path(model).read_text(encoding="utf-8"))
        super().__init__(task["model"], form, threads)
        self._end = task["end"]
        self._cached: list[int] = []
        self._ids = np.arange(self._vocabulary, dtype=np.int32)
        self._candidates = (llama_cpp.llama_token_data * self._vocabulary)()
        self._table = np.frombuffer(self._candidates, _TOKEN_DATA)
        begin = time.perf_counter()
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, task["grammar"].encode(), b"root")
        if not self._grammar:
            raise RuntimeError("the grammar could not be read")
        self._grammar_ms = (time.perf_counter() - begin) * 1000
        self.greedy(task["warm_up"], 128)

    def about(self) -> dict[str, Any]:
        return super().about() | {
            "constraint": "grammar, a rule a topic; the likeliest token is tried first, then the whole vocabulary",
            "prompt_cache": "on",
            "grammar_ms": self._grammar_ms,
        }

    def _logits(self) -> Any:
        if llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, -1), (self._vocabulary,))

    def _apply(self, grammar: Any, data: Any, size: int) -> None:
        """Sets the logits of tokens that the grammar refuses to minus infinity."""
        array = llama_cpp.llama_token_data_array(
            ctypes.cast(data, llama_cpp.llama_token_data_p), size, -1, False
        )
        llama_cpp.llama_sampler_apply(grammar, ctypes.byref(array))

    def _allowed(self, grammar: Any, logits: Any) -> int:
        """The likeliest token that the grammar allows."""
        token = int(logits.argmax())
        single = llama_cpp.llama_token_data(token, 1.0, 0.0)
        self._apply(grammar, ctypes.byref(single), 1)
        if np.isfinite(single.logit):
            return token
        self._table["id"], self._table["logit"] = self._ids, logits
        self._apply(grammar, self._candidates, self._vocabulary)
        best = self._table["logit"].argmax()
        if not np.isfinite(self._table["logit"][best]):
            raise RuntimeError("the grammar allows no token")
        return int(self._table["id"][best])

    def _choose_path(self, text: Sequence[int], count: int) -> list[int]:
        same = 0
        while same < min(len(self._cached), len(text) - 1) and self._cached[same] == text[same]:
            same += 1
        self._truncate(same)
        self._feed(text[same:], same)
        self._cached = list(text)
        # A copy of the grammar as it was read: llama.cpp would read it anew to reset it.
        grammar = llama_cpp.llama_sampler_clone(self._grammar)
        tokens: list[int] = []
        try:
            while True:
                tokens.append(self._allowed(grammar, self._logits()))
                if tokens[-1] == self._end or len(tokens) == count:
                    return tokens
                llama_cpp.llama_sampler_accept(grammar, tokens[-1])
                self._feed(tokens[-1:], len(text) + len(tokens) - 1)
        finally:
            llama_cpp.llama_sampler_free(grammar)

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        time_ms = milliseconds(lambda: tokens.extend(self._choose_path(text, count)))
        return tokens, [time_ms]


if __name__ == "__main__":
    main(LlamaCppTargeting)
