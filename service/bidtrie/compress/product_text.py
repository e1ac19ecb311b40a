"""Held-out ad text that models are measured on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bidtrie.evaluation.creative import LabelledProduct
from bidtrie.models.tokenizer import Tokenizer


def product_sequences(
    products: Sequence[LabelledProduct], tokenizer: Tokenizer, length: int = 256
) -> NDArray[np.int64]:
    """Products as prose, one after the other, cut into sequences: int64 [sequences, length]; the rest is dropped.

    A product is `COMPANY (INDUSTRY): DESCRIPTION`, and the text that was written for it on the next line.
    """
    tokens: list[int] = []
    for each in products:
        tokens += tokenizer.encode(
            f"{each.company} ({each.industry}): {each.description}\n{each.reference}\n\n"
        )
    count = len(tokens) // length
    return np.array(tokens[: count * length], np.int64).reshape(count, length)
