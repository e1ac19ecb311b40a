"""How well a model predicts ad text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bidtrie.compress.llama import Llama
from bidtrie.evaluation.creative import LabelledProduct
from bidtrie.models.tokenizer import Tokenizer

#: Logits of a large vocabulary are a few hundred bytes each: so many tokens at a time.
_BATCH_TOKENS = 1024


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


@torch.inference_mode()
def perplexity(model: Llama, sequences: NDArray[Any]) -> float:
    """exp of the mean negative log-likelihood of a token given those before it in its sequence, [sequences, tokens]."""
    nats, count = 0.0, 0
    tokens = torch.from_numpy(sequences)
    for part in torch.split(tokens, max(1, _BATCH_TOKENS // tokens.shape[1])):
        logits = model.forward(part)[:, :-1]
        nats += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
            ).double()
        )
        count += part[:, 1:].numel()
    return math.exp(nats / count)
