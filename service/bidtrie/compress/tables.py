"""The 16 values that 4-bit codes may stand for."""

import numpy as np
from numpy.typing import NDArray

from bidtrie.models.group_tensor import TABLE_LIMIT

#: NormalFloat4: quantiles of the normal distribution with an exact zero, from -1 to 1 (Dettmers et al., 2023, QLoRA,
#: arXiv:2305.14314, appendix E).
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def normal_table() -> NDArray[np.int8]:
    """int8 [16], ascending from -32 to 32: NormalFloat4 in integers, for weights that are about normal."""
    table: NDArray[np.int8] = np.rint(np.array(_NF4) * TABLE_LIMIT).astype(np.int8)
    return table
