"""llama.cpp through its C interface, as llama-cpp-python binds it, built for this machine."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from bench.peers.worker import Measured, main, milliseconds

#: Quantized file type, and the type of the embedding that is the head too (None: llama.cpp's own choice, 8 bits).
FORMATS = {
    "q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, None),
    "q4_0_head4": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, llama_cpp.GGML_TYPE_Q4_0),
    "q4_1": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1, None),
    "q4_k_m": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, None),
}
_CONTEXT = 1024
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


def convert(source: Path, target: Path, form: str) -> None:
    """Quantize a GGUF file anew."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, head = FORMATS[form]
    options.allow_requantize = True
    if head is not None:
        options.token_embedding_type = options.output_tensor_type = head
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options)):
        raise RuntimeError(f"{source} could not be quantized to {form}")


class LlamaCpp(Measured):
    def __init__(self, model: str, form: str, threads: int) -> None:
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"{model} could not be loaded")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = _CONTEXT
        options.n_threads = options.n_threads_batch = threads
        options.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(_CONTEXT, 0, 1)

    def about(self) -> dict[str, Any]:
        return {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "settings": "native build, OpenMP, weights repacked where llama.cpp can, flash attention as it chooses, "
            "float16 cache, logits of the last token only",
            "instruction_sets": llama_cpp.llama_print_system_info().decode(),
        }

    def _feed(self, tokens: Sequence[int], position: int, all_rows: bool = False) -> None:
        """Fill the batch."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_rows or i == len(tokens) - 1

    def _choose(self, rows: int = 1) -> int:
        """Compute the batch; the likeliest token after its last one (those after others are looked up and dropped)."""
        if llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError("llama_decode failed")
        for row in range(-rows, 0):
            logits = llama_cpp.llama_get_logits_ith(self._context, row)
            token = np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax()
        return int(token)

    def _truncate(self, length: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, 0, length, -1)

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        self._truncate(0)
        self._feed(text, 0)
        tokens = [self._choose()]
        times = []

        def step() -> None:
            self._feed(tokens[-1:], len(text) + len(tokens) - 1)
            tokens.append(self._choose())

        while len(tokens) < count:
            times.append(milliseconds(step))
        return tokens, times

    def _extend(self, text: Sequence[int], more: Sequence[int], repeats: int, all_rows: bool) -> list[float]:
        self._truncate(0)
        self._feed(text, 0)
        self._choose()
        self._feed(more, len(text), all_rows)
        times = []
        for _ in range(repeats):
            times.append(milliseconds(lambda: self._choose(len(more) if all_rows else 1)))
            self._truncate(len(text))
        return times

    def extend(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        return self._extend(text, more, repeats, all_rows=False)

    def extend_all_rows(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        return self._extend(text, more, repeats, all_rows=True)

    def prefill(self, text: Sequence[int], repeats: int) -> list[float]:
        self._feed(text, 0)
        times = []
        for _ in range(repeats):
            self._truncate(0)
            times.append(milliseconds(self._choose))
        return times


if __name__ == "__main__":
    main(LlamaCpp, convert)
