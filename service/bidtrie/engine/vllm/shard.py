"""Parts of a compressed weight, for tensor parallelism: a GPU holds some rows of it, or some columns."""

from collections.abc import Mapping
from dataclasses import replace

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import AnyTensor
from bidtrie.models.group_tensor import COLUMN_MULTIPLE, GroupTensor, part_layout

#: The linears of a layer that each GPU has some columns of; of all others it has rows.
COLUMN_PARALLEL = frozenset({"o_proj", "down_proj"})


def rows_of(tensor: GroupTensor, first: int, last: int) -> GroupTensor:
    """Rows [first, last), as views. Every row has its own groups, so any rows will do."""
    return _cut(tensor, (last - first, tensor.shape[1]), slice(first, last), 0)


def columns_of(name: str, tensor: GroupTensor, rank: int, ranks: int) -> GroupTensor:
    """The columns of part `rank` of `ranks` equal ones, as views.

    Raises ModelError naming the weight where a part would end within a group of columns that share a scale. One GPU
    takes the whole weight, whose last group may be short.
    """
    if ranks == 1:
        return tensor
    rows, cols = tensor.shape
    group = tensor.format.group_size
    width, rest = divmod(cols, ranks)
    if rest or width % group or width % COLUMN_MULTIPLE:
        raise ModelError(
            f"{name}: {cols} columns over {ranks} GPUs, expected parts of whole groups of {group} columns: "
            "use fewer GPUs, or compress with a smaller group_size"
        )
    return _cut(tensor, (rows, width), slice(None), rank)


def check_shards(tensors: Mapping[str, AnyTensor], ranks: int) -> None:
    """Raise ModelError where `columns_of` would, for the linears whose columns vLLM spreads over the GPUs.

    The workers would raise it too, but each in its own process, where nobody sees it.
    """
    for name, tensor in tensors.items():
        if isinstance(tensor, GroupTensor) and name.split(".")[-2] in COLUMN_PARALLEL:
            columns_of(name, tensor, 0, ranks)


def _cut(tensor: GroupTensor, shape: tuple[int, int], rows: slice, column_part: int) -> GroupTensor:
    def cut(field: str) -> object:
        array = getattr(tensor, field)
        if array is None or field == "table":
            return array
        width = part_layout(tensor.format, shape)[field][1][1]
        return array[rows, column_part * width : (column_part + 1) * width]

    return replace(
        tensor,
        shape=shape,
        **{field: cut(field) for field in ("codes", "scales", "minimums", "table", "positions")},  # type: ignore[arg-type]
    )
