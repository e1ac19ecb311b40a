"""An artefact in the `compressed-tensors` format "pack-quantized", which stock vLLM and transformers read.

Format: https://github.com/vllm-project/compressed-tensors. It has symmetric integer codes of 4 or 8 bits with a scale a
group: weight = scale * code. So `int4` and `int8` can be said in it, exactly; a minimum (a float, where the format has
whole zero points), a table, and positions of sparse weights cannot. Embedding and head are written as float32: vLLM
reads them so.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bidtrie.errors import ModelError
from bidtrie.models.artefact import QUANTIZATION
from bidtrie.models.artefact_writer import check_writable, whole_folder, write_tokenizer
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from bidtrie.models.huggingface import WEIGHTS
from bidtrie.models.huggingface_config import CONFIG
from bidtrie.models.layout import is_head, linear_shapes

#: Group sizes that vLLM's kernels take.
GROUP_SIZES = (32, 64, 128)
#: Linears that vLLM computes as one: their formats must be the same.
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_NAMED_AT_MOST = 5


def export_compressed_tensors(checkpoint: Checkpoint, out: Path) -> None:
    """Write an artefact's checkpoint to the folder `out`, new or empty; whole, or not at all.

    Raises ModelError if it is no artefact, and naming the linears that the format cannot express.
    """
    if checkpoint.compression is None:
        raise ModelError(
            f"{checkpoint.name}: is not compressed, expected a folder that bidtrie compress wrote"
        )
    check_writable(checkpoint, out)
    formats = _formats(checkpoint)
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in checkpoint.tensors.items():
        linear = name.removesuffix(".weight")
        if isinstance(tensor, GroupTensor) and linear in formats:
            arrays[f"{linear}.weight_packed"] = _packed(tensor)
            arrays[f"{linear}.weight_scale"] = tensor.scales
            arrays[f"{linear}.weight_shape"] = np.array(tensor.shape, np.int64)
        else:
            arrays[name] = tensor.dequantize()
    config = {
        **(checkpoint.huggingface_config or {}),
        QUANTIZATION: _quantization(formats, linear_shapes(checkpoint.config)),
        # Kernels for packed weights take activations of 16 bits.
        "torch_dtype": "float16",
    }
    with whole_folder(out) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
        write_tokenizer(folder, checkpoint.tokenizer)


def _formats(checkpoint: Checkpoint) -> dict[str, GroupFormat]:
    """The formats of the layers' linears. Raises ModelError naming those that cannot be expressed."""
    formats = {}
    problems = []
    for linear in linear_shapes(checkpoint.config):
        tensor = checkpoint.tensors[f"{linear}.weight"]
        if is_head(linear) or not isinstance(tensor, GroupTensor):
            continue
        formats[linear] = tensor.format
        if problem := _problem(tensor):
            problems.append(f"{linear} ({tensor.format}: {problem})")
    if not problems:
        problems = list(_differing(formats, linear_shapes(checkpoint.config)))
    if problems:
        more = len(problems) - _NAMED_AT_MOST
        raise ModelError(
            f"{checkpoint.name}: compressed-tensors cannot express {'; '.join(problems[:_NAMED_AT_MOST])}"
            + (f"; and {more} more" if more > 0 else "")
            + f". Expected int4 or int8 in groups of {', '.join(map(str, GROUP_SIZES))} that divide the rows"
        )
    if not formats:
        raise ModelError(f"{checkpoint.name}: no linear of a layer is compressed: nothing to export")
    return formats


def _problem(tensor: GroupTensor) -> str | None:
    format = tensor.format
    if format.pattern != "dense":
        return "positions of sparse weights"
    if format.table:
        return "a table"
    if format.minimum:
        return "minimums"
    if format.group_size not in GROUP_SIZES:
        return f"groups of {format.group_size}"
    if tensor.shape[1] % format.group_size:
        return f"rows of {tensor.shape[1]} end in a short group"
    return None


def _differing(formats: dict[str, GroupFormat], linears: Iterable[str]) -> Iterable[str]:
    """Linears that are computed as one and are not stored alike."""
    for linear in linears:
        parent, _, last = linear.rpartition(".")
        for first, *others in _FUSED:
            if last in others and formats.get(linear) != (expected := formats.get(f"{parent}.{first}")):
                yield f"{linear} ({formats.get(linear)} beside {first}'s {expected}: they are computed as one)"


def _packed(tensor: GroupTensor) -> NDArray[np.int32]:
    """int32 [rows, cols * bits / 32], the first code in the lowest bits, each as code + 2^(bits - 1)."""
    # Our codes of 4 bits are 0 to 15 for -8 to 7, two a byte, the even column lowest: the very same bytes.
    stored = tensor.codes if tensor.format.bits == 4 else tensor.codes ^ np.uint8(0x80)
    packed: NDArray[np.int32] = np.ascontiguousarray(stored).view("<i4").astype(np.int32, copy=False)
    return packed


def _quantization(formats: dict[str, GroupFormat], linears: Iterable[str]) -> dict[str, Any]:
    groups: dict[GroupFormat, list[str]] = {}
    for linear, format in formats.items():
        groups.setdefault(format, []).append(linear)
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": [linear for linear in linears if linear not in formats and linear != "model.embed_tokens"],
        "config_groups": {
            f"group_{i}": {
                "targets": targets,
                "weights": {
                    "num_bits": format.bits,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group",
                    "group_size": format.group_size,
                    "dynamic": False,
                },
                "input_activations": None,
                "output_activations": None,
            }
            for i, (format, targets) in enumerate(groups.items())
        },
    }
