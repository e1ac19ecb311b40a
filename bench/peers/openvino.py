"""OpenVINO on the CPU: its own runtime, and weights that NNCF compressed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13
from openvino._offline_transformations import paged_attention_transformation

from bench.peers.worker import Measured, main, milliseconds

#: Group size of the symmetric weights of 4 bits, head included. Activations are quantized in the same groups.
FORMATS = {"int4": 32, "int4_g64": 64}
#: Tokens a block of the paged cache (fixed by OpenVINO for the CPU), and blocks.
_BLOCK, _BLOCKS = 32, 32


def convert(source: Path, target: Path, form: str) -> None:
    """Export a Hugging Face directory to OpenVINO's format and compress its weights."""
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    compression = OVWeightQuantizationConfig(
        bits=4, sym=True, group_size=FORMATS[form], ratio=1.0, all_layers=True
    )
    model = OVModelForCausalLM.from_pretrained(
        source, export=True, compile=False, quantization_config=compression
    )
    model.save_pretrained(target)


def _last_row_only(graph: Any, axis: int) -> None:
    """Let the head see the last token only, as OpenVINO GenAI does to the models that it loads."""
    head = graph.output("logits").get_node().input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    slicing = (opset13.constant(np.array([value])) for value in (-1, -2, -1, axis))
    head.input(0).replace_source_output(opset13.slice(head.input_value(0), *slicing).output(0))
    graph.validate_nodes_and_infer_types()


class OpenVino(Measured):
    """Both kinds of attention that OpenVINO has, each for what it is faster at.

    The stateful one decodes and prefills sooner; the paged one is far ahead where tokens follow cached ones.
    """

    def __init__(self, model: str, form: str, threads: int) -> None:
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": FORMATS[form],
        }
        file = Path(model) / "openvino_model.xml"
        stateful, paged = core.read_model(file), core.read_model(file)
        _last_row_only(stateful, axis=1)
        paged_attention_transformation(paged)
        _last_row_only(paged, axis=0)
        self._compiled = core.compile_model(stateful, "CPU", settings)
        self._stateful = self._compiled.create_infer_request()
        paged_compiled = core.compile_model(paged, "CPU", settings)
        self._paged = paged_compiled.create_infer_request()
        for cache in paged_compiled.inputs:
            if "cache" in cache.any_name:
                shape = [_BLOCKS, *(size.get_length() for size in list(cache.partial_shape)[1:])]
                self._paged.set_tensor(cache, ov.Tensor(cache.element_type, ov.Shape(shape)))

    def about(self) -> dict[str, Any]:
        shown = ("INFERENCE_NUM_THREADS", "DYNAMIC_QUANTIZATION_GROUP_SIZE")
        types = ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION")
        values = [f"{name} {self._compiled.get_property(name)}" for name in shown]
        values += [f"{name} {self._compiled.get_property(name).get_type_name()}" for name in types]
        return {
            "version": f"openvino {ov.get_version()}",
            "settings": "int4 symmetric, LATENCY, paged attention on cached text and stateful otherwise, logits of the "
            f"last token only, {', '.join(values)}",
        }

    def _choose(self, tokens: Sequence[int], past: int) -> int:
        """Compute tokens that follow `past` ones in the stateful cache; the likeliest token after them."""
        count = len(tokens)
        inputs = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, past + count), np.int64),
            "position_ids": np.arange(past, past + count, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return _likeliest(self._stateful, inputs)

    def _choose_paged(self, tokens: Sequence[int], past: int) -> int:
        """The same with the paged cache."""
        length = past + len(tokens)
        blocks = -(-length // _BLOCK)
        inputs = {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.arange(past, length, dtype=np.int64),
            "past_lens": np.array([past], np.int32),
            "subsequence_begins": np.array([0, len(tokens)], np.int32),
            "block_indices": np.arange(blocks, dtype=np.int32),
            "block_indices_begins": np.array([0, blocks], np.int32),
            "max_context_len": np.array(length, np.int32),
        }
        return _likeliest(self._paged, inputs)

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        self._stateful.reset_state()
        tokens = [self._choose(text, 0)]
        times = []

        def step() -> None:
            tokens.append(self._choose(tokens[-1:], len(text) + len(tokens) - 1))

        while len(tokens) < count:
            times.append(milliseconds(step))
        return tokens, times

    def extend(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        self._choose_paged(text, 0)
        return [milliseconds(lambda: self._choose_paged(more, len(text))) for _ in range(repeats)]

    def prefill(self, text: Sequence[int], repeats: int) -> list[float]:
        times = []
        for _ in range(repeats):
            self._stateful.reset_state()
            times.append(milliseconds(lambda: self._choose(text, 0)))
        return times


def _likeliest(request: Any, inputs: dict[str, Any]) -> int:
    answer = request.infer(inputs, share_inputs=True, share_outputs=True)
    return int(answer["logits"].argmax())


if __name__ == "__main__":
    main(OpenVino, convert)
