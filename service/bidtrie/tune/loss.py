"""What is minimised: the served score's own cross-entropy, and plain likelihood.

Trie-normalised: at each branching of the right path, -log of the right child's share among the candidates; chains cost
nothing, as in the service. What the retriever says for a child is added to its logit where the choice carries it.
Likelihood: -log of each answer token's share of the whole vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidtrie.tune.example import Choice, Float32


def trie_loss(hidden: Tensor, head: Tensor, choices: Sequence[Choice], smoothing: float = 0.0) -> Tensor:
    """Sum over choices of the cross-entropy, in nats.

    hidden     [n, d], what the head gets for each token
    head       [vocabulary, d]
    smoothing  the share of the target that is spread evenly over all candidates (label smoothing of Szegedy et al.)
    """
    if not choices:
        return hidden.sum() * 0.0
    on = hidden.device
    counts = torch.tensor([len(each.candidates) for each in choices], device=on)
    of = torch.repeat_interleave(torch.arange(len(choices), device=on), counts)
    rows = torch.tensor([each.row for each in choices], device=on)
    tokens = torch.from_numpy(np.concatenate([each.candidates for each in choices])).to(on)
    logits = (hidden[rows].float()[of] * head[tokens].float()).sum(-1)
    if any(each.beside is not None for each in choices):
        logits = logits + torch.from_numpy(np.concatenate([_beside(each) for each in choices])).to(on)
    # A row a choice; what is beyond a choice's candidates has no share.
    first = torch.cumsum(counts, 0) - counts
    column = torch.arange(len(of), device=on) - first[of]
    table = torch.full((len(choices), int(counts.max())), -torch.inf, device=on)
    log_share = table.index_put((of, column), logits).log_softmax(-1)[of, column]
    right = first + torch.tensor([each.right for each in choices], device=on)
    loss = -(1.0 - smoothing) * log_share[right].sum()
    if smoothing:
        loss = loss - smoothing * (log_share / counts[of]).sum()
    return loss


def _beside(choice: Choice) -> Float32:
    return np.zeros(len(choice.candidates), np.float32) if choice.beside is None else choice.beside


def word_loss(hidden: Tensor, head: Tensor, rows: Any, words: Any) -> Tensor:
    """Sum over answer tokens of the cross-entropy over the whole vocabulary, in nats."""
    on = hidden.device
    logits = torch.nn.functional.linear(hidden[torch.from_numpy(rows).to(on)], head)
    return torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(words).to(on), reduction="sum")
