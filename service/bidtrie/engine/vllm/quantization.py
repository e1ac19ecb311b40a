"""vLLM's quantization method "bidtrie": it loads the artefacts that bidtrie.models.artefact describes.

A merged layer of vLLM (qkv_proj, gate_up_proj) stands for several linears of the artefact, each with a format of its
own; they stay parts. With tensor parallelism every part is cut as vLLM cuts the layer.
"""

from typing import Any

import torch
from torch import nn
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from bidtrie.engine.vllm.parts import Part, PlainPart, part_of
from bidtrie.engine.vllm.shard import columns_of, rows_of
from bidtrie.errors import ModelError
from bidtrie.models.artefact import PARTS, QUANT_METHOD, QUANTIZATION, read_formats
from bidtrie.models.fields import Fields
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import COLUMN_MULTIPLE, GroupTensor, part_layout

#: The linears that vLLM's merged layers stand for, and what vLLM calls each of them while loading.
MERGED: dict[str, dict[Any, str]] = {
    "qkv_proj": {"q": "q_proj", "k": "k_proj", "v": "v_proj"},
    "gate_up_proj": {0: "gate_proj", 1: "up_proj"},
}
#: vLLM does not tell the name of the embedding.
_EMBEDDING = "model.embed_tokens"
#: Key of vLLM's `additional_config`: whether weights are dequantized although there are kernels for their codes.
DEQUANTIZE = "bidtrie_dequantize"
_TORCH_TYPES = {"uint8": torch.uint8, "int8": torch.int8, "float16": torch.float16}


@register_quantization_config(QUANT_METHOD)
class BidtrieConfig(QuantizationConfig):
    """Formats of an artefact's linears, by their names in the checkpoint."""

    def __init__(self, formats: dict[str, GroupFormat]) -> None:
        super().__init__()
        self.formats = formats

    def get_name(self) -> str:
        return QUANT_METHOD

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        """Weights are dequantized at load where there are no kernels for their codes, so any GPU will do."""
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BidtrieConfig":
        """Raises ModelError naming what is wrong in config.json's quantization_config."""
        return cls(read_formats(Fields("config.json", {QUANTIZATION: config})) or {})

    def get_quant_method(self, layer: Any, prefix: str) -> QuantizeMethodBase | None:
        linear = isinstance(layer, LinearBase)
        if not linear and not isinstance(layer, VocabParallelEmbedding):
            return None
        names = _names(prefix or _EMBEDDING)
        formats = {shard: self.formats.get(name) for shard, name in names.items()}
        # A head that is the embedding has no weight of its own, and must not look for a plain one there.
        tied = isinstance(layer, ParallelLMHead) and _EMBEDDING in self.formats
        if not any(formats.values()) and not tied:
            return UnquantizedLinearMethod() if linear else None
        return BidtrieMethod(names, formats)


def _names(prefix: str) -> dict[Any, str]:
    """The checkpoint's linears that a layer of vLLM stands for, by shard id."""
    above, _, last = prefix.rpartition(".")
    return {shard: f"{above}.{name}" for shard, name in MERGED.get(last, {}).items()} or {None: prefix}


class BidtrieMethod(LinearMethodBase):
    """Loads and multiplies the parts of one layer: a linear, a merged one, the embedding or the head."""

    def __init__(self, names: dict[Any, str], formats: dict[Any, GroupFormat | None]) -> None:
        self._names = names
        self._formats = formats

    def create_weights(
        self,
        layer: Any,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **_: Any,
    ) -> None:
        """Empty parameters for the loader to find; what is loaded into them is kept until all of it is there."""
        self._dtype = params_dtype
        self._input_size = input_size
        self._sizes = output_partition_sizes
        self._dequantize = bool(get_current_vllm_config().additional_config.get(DEQUANTIZE, False))
        self._loaded: dict[Any, dict[str, torch.Tensor]] = {shard: {} for shard in self._names}
        kinds: dict[str, torch.dtype] = {}
        for format in self._formats.values():
            if format is None:
                kinds["weight"] = params_dtype
                continue
            layout = part_layout(format, (1, COLUMN_MULTIPLE))
            kinds |= {PARTS[field]: _TORCH_TYPES[dtype.name] for field, (dtype, _) in layout.items()}
        for name, dtype in kinds.items():
            parameter: Any = nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False)
            parameter.weight_loader = self._keeper(name)
            layer.register_parameter(name, parameter)

    def _keeper(self, field: str) -> Any:
        def keep(parameter: nn.Parameter, loaded: torch.Tensor, shard: Any = None) -> None:
            if shard not in self._loaded:
                raise ModelError(
                    f"{self._names}: {field} was loaded as {shard!r}, expected one of these parts"
                )
            self._loaded[shard][field] = loaded.cpu()

        return keep

    def process_weights_after_loading(self, layer: Any) -> None:
        device = torch.get_default_device()
        parameters = dict(layer.named_parameters(recurse=False))
        for name in (*PARTS.values(), "weight"):
            if name in parameters:
                device = parameters[name].device
                delattr(layer, name)
        layer.parts = nn.ModuleList(self._part(layer, shard, device) for shard in self._names)
        self._loaded.clear()

    def _part(self, layer: Any, shard: Any, device: torch.device) -> Part:
        name, format, loaded = self._names[shard], self._formats[shard], self._loaded[shard]
        if format is None:
            return PlainPart(
                self._cut_plain(layer, shard, _found(name, loaded, "weight")).to(device, self._dtype)
            )
        scales = _found(name, loaded, PARTS["scales"])
        shape = (scales.shape[0], self._input_size)
        arrays = {field: _found(name, loaded, PARTS[field]).numpy() for field in part_layout(format, shape)}
        tensor = GroupTensor(format, shape, **arrays)
        if problem := tensor.problem():
            raise ModelError(f"{name}: {problem}")
        if isinstance(layer, RowParallelLinear):
            tensor = columns_of(name, tensor, layer.tp_rank, layer.tp_size)
        else:
            tensor = rows_of(tensor, *_rows(layer, shard, shape[0]))
        return part_of(tensor, self._dtype, device, self._dequantize)

    def _cut_plain(self, layer: Any, shard: Any, weight: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, RowParallelLinear):
            part: torch.Tensor = weight.chunk(layer.tp_size, dim=1)[layer.tp_rank]
            return part
        return weight[slice(*_rows(layer, shard, weight.shape[0]))]

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        outs = [part.linear(flat) for part in layer.parts]
        out: torch.Tensor = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        if isinstance(layer, VocabParallelEmbedding) and out.shape[1] < sum(self._sizes):
            # Every GPU's share of the vocabulary is padded to one size.
            out = nn.functional.pad(out, (0, sum(self._sizes) - out.shape[1]))
        if bias is not None:
            out = out + bias
        return out.reshape(*x.shape[:-1], out.shape[1])

    def embedding(self, layer: Any, ids: torch.Tensor) -> torch.Tensor:
        (part,) = layer.parts
        out: torch.Tensor = part.embedding(ids.reshape(-1))
        return out.reshape(*ids.shape, -1)

    def tie_weights(self, layer: Any, embed_tokens: Any) -> Any:
        """The embedding itself is the head."""
        return embed_tokens


def _found(name: str, loaded: dict[str, torch.Tensor], field: str) -> torch.Tensor:
    if field not in loaded:
        raise ModelError(f"tensor {name}.{field} is missing")
    return loaded[field]


def _rows(layer: Any, shard: Any, rows: int) -> tuple[int, int]:
    """The rows of a whole part that this GPU holds."""
    if isinstance(layer, VocabParallelEmbedding):
        return layer.shard_indices.org_vocab_start_index, layer.shard_indices.org_vocab_end_index
    rank, ranks = layer.tp_rank, layer.tp_size
    # Key-value heads that are fewer than the GPUs are held several times.
    if shard in ("k", "v"):
        rank, ranks = rank // layer.num_kv_head_replicas, ranks // layer.num_kv_head_replicas
    return rows * rank // ranks, rows * (rank + 1) // ranks
