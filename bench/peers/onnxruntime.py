"""ONNX Runtime GenAI on a model that its own builder made."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime_genai as og

from bench.peers.worker import Measured, main, milliseconds

_CONTEXT = 1024
#: Group size of the weights of 4 bits, head included.
FORMATS = {"int4": 32, "int4_g128": 128}


def convert(source: Path, target: Path, form: str) -> None:
    """Build an ONNX model from a Hugging Face directory."""
    # Activations of 8 bits, and logits of the last token only.
    extra = [f"block_size={FORMATS[form]}", "accuracy_level=4", "prune_lm_head=true"]
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        places = ["-i", str(source), "-o", str(target), "-c", cache]
        subprocess.run([*command, *places, "-p", "int4", "-e", "cpu", "--extra_options", *extra], check=True)


class OnnxRuntime(Measured):
    def __init__(self, model: str, form: str, threads: int) -> None:
        self._form = form
        settings = og.Config(model)
        settings.overlay(
            json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
        )
        self._model = og.Model(settings)

    def about(self) -> dict[str, Any]:
        return {
            "version": f"onnxruntime-genai {og.__version__}",
            "settings": f"int4, groups of {FORMATS[self._form]}, accuracy level 4, cache in one buffer, "
            "logits of the last token only",
        }

    def _generator(self) -> Any:
        options = og.GeneratorParams(self._model)
        options.set_search_options(max_length=_CONTEXT, do_sample=False)
        return og.Generator(self._model, options)

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        generator = self._generator()
        generator.append_tokens(list(text))
        generator.generate_next_token()
        times = [milliseconds(generator.generate_next_token) for _ in range(count - 1)]
        return [int(token) for token in generator.get_sequence(0)[len(text) :]], times

    def extend(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        generator = self._generator()
        generator.append_tokens(list(text))
        times = []
        for _ in range(repeats):
            times.append(milliseconds(lambda: generator.append_tokens(list(more))))
            generator.rewind_to(len(text))
        return times

    def prefill(self, text: Sequence[int], repeats: int) -> list[float]:
        times = []
        for _ in range(repeats):
            generator = self._generator()
            times.append(milliseconds(lambda: generator.append_tokens(list(text))))  # noqa: B023 (called at once)
        return times


if __name__ == "__main__":
    main(OnnxRuntime, convert)
