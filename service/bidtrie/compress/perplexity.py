"""How well a model predicts ad text."""

import math
from typing import Any

import torch
from numpy.typing import NDArray

from bidtrie.compress.llama import Llama

#: Logits of a large vocabulary are a few hundred bytes each: so many tokens at a time.
_BATCH_TOKENS = 1024


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
