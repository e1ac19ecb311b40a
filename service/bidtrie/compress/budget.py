"""Formats for all linears under a budget: every option is measured once, for any number of budgets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.compress.allocation import Allocation, Budget, Choices, allocate
from bidtrie.compress.calibrate import calibrate
from bidtrie.compress.cost_table import CostTable
from bidtrie.compress.gptq import solve_linear
from bidtrie.compress.llama import Llama
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.sensitivity import (
    Checked,
    loss_choices,
    measured_losses,
    output_curvature,
    spearman,
)
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import COLUMN_MULTIPLE, GroupTensor
from bidtrie.models.layout import is_head, linear_shapes

#: What a linear of a layer may be stored as: 8.1 to 1.6 bits a weight.
FORMATS = (
    GroupFormat(8, 128),
    *(GroupFormat(4, size) for size in (32, 64, 128)),
    *(GroupFormat(4, size, minimum=True) for size in (32, 64, 128)),
    *(GroupFormat(4, size, table=True) for size in (32, 64, 128)),
    *(GroupFormat(4, size, table=True, pattern="2:4") for size in (32, 64, 128)),
    *(GroupFormat(4, size, table=True, pattern="1:4") for size in (32, 64, 128)),
)
#: Formats in which predictions are checked: one of the middle, one that hurts.
CHECKED_FORMATS = (GroupFormat(4, 64), GroupFormat(4, 64, table=True, pattern="2:4"))
#: Linears whose predictions are checked, and tokens that they are checked on.
_CHECKED_LINEARS = 12
_CHECKED_TOKENS = 512

#: Told what is done now, and how many steps of it of how many.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What each format would cost each linear, and how well that was predicted where it was measured.

    choices: by module. checked: the sample. left_out: linears of layers that no format fits.
    """

    choices: Mapping[str, Choices]
    checked: Sequence[Checked]
    left_out: Sequence[str]

    def spearman(self, format: GroupFormat | None = None) -> float | None:
        """Rank correlation of predicted and measured losses, over the sample or one format's; None if undefined."""
        among = [each for each in self.checked if format is None or each.format == format.name]
        value = spearman([each.predicted for each in among], [each.measured for each in among])
        return None if np.isnan(value) else value

    def allocate(self, budget: Budget) -> Allocation:
        """See `allocation.allocate`."""
        return allocate(self.choices, budget)

    def record(self, budget: Budget, allocation: Allocation) -> dict[str, Any]:
        """The evidence of one allocation for compression.json; losses in nats a token."""
        return {
            "budget": asdict(budget),
            "spent": allocation.spent,
            "predicted_loss": allocation.loss,
            "lower_bound": allocation.bound,
            "check": {
                "spearman": self.spearman(),
                "spearman_by_format": {format.name: self.spearman(format) for format in CHECKED_FORMATS},
                "samples": [asdict(each) for each in self.checked],
            },
            "losses": {
                name: {option.format.name: float(f"{option.loss:.4g}") for option in each.options}
                for name, each in self.choices.items()
            },
        }


def analyse(
    checkpoint: Checkpoint,
    sequences: NDArray[np.int64],
    costs: CostTable,
    *,
    feedback: bool,
    seed: int,
    progress: Progress,
) -> Analysis:
    """Predict every option's loss from calibration text, and check a sample of the predictions.

    sequences: int64 [sequences, tokens]. costs: of `FORMATS`. feedback: whether the linears will be solved with error
    feedback, or rounded to nearest.
    """

    def told(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, done, total)

    shapes = {name: shape for name, shape in linear_shapes(checkpoint.config).items() if not is_head(name)}
    fitting = [name for name, (_, cols) in shapes.items() if cols % COLUMN_MULTIPLE == 0]
    drawn = set(_drawn(fitting, seed))
    curvature = output_curvature(checkpoint, sequences, seed, told("gradients"))
    choices: dict[str, Choices] = {}
    samples: list[tuple[str, GroupTensor]] = []
    progress("sensitivities", 0, len(shapes))
    for inputs in calibrate(Llama(checkpoint), sequences):
        usable = [name for name in inputs.linears if name in fitting]
        if not usable:
            continue
        choices |= loss_choices(checkpoint, FORMATS, inputs, curvature, costs, feedback=feedback)
        for name in sorted(drawn.intersection(usable)):
            weight = checkpoint.tensors[f"{name}.weight"].dequantize()
            for format in CHECKED_FORMATS:
                samples.append(
                    (
                        name,
                        solve_linear(weight, inputs.hessian, format, rounds=0, name=f"{name}.weight")
                        if feedback
                        else quantize(weight, format, name=f"{name}.weight"),
                    )
                )
        progress("sensitivities", len(choices), len(shapes))
    slice_ = sequences[: max(1, _CHECKED_TOKENS // sequences.shape[1])]
    measured = measured_losses(checkpoint, slice_, samples, told("checking predictions"))
    checked = [
        Checked(name, tensor.format.name, _loss(choices[name], tensor.format), loss)
        for (name, tensor), loss in zip(samples, measured, strict=True)
    ]
    return Analysis(choices, checked, [name for name in shapes if name not in fitting])


def formats_of(allocation: Allocation, checkpoint: Checkpoint, head: GroupFormat) -> dict[str, GroupFormat]:
    """The allocation's formats, and `head` for embedding and head, in the order of `linear_shapes`."""
    return dict(_formats_of(allocation, checkpoint, head))


def _formats_of(
    allocation: Allocation, checkpoint: Checkpoint, head: GroupFormat
) -> Iterator[tuple[str, GroupFormat]]:
    for name, (_, cols) in linear_shapes(checkpoint.config).items():
        if name in allocation.chosen:
            yield name, allocation.chosen[name].format
        elif is_head(name) and cols % COLUMN_MULTIPLE == 0:
            yield name, head


def _drawn(names: Sequence[str], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [names[i] for i in rng.choice(len(names), min(_CHECKED_LINEARS, len(names)), replace=False)]


def _loss(choices: Choices, format: GroupFormat) -> float:
    return next(option.loss for option in choices.options if option.format == format)
