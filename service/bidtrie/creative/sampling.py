"""Drawing tokens: greedy, or temperature, then top-k, then top-p, as Hugging Face transformers orders them.

Before that the logits of tokens that the text holds already are lowered by the repetition penalty of Keskar et al. 2019
(CTRL), as transformers applies it, but never for tokens of the prompt: an ad should repeat its product's name.

Random numbers come from a counter-based generator (Philox 4x64, Salmon et al. 2011) keyed by seed and slot, with
candidate, position and attempt as the counter: a draw depends on nothing else that is computed at the same time.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bidtrie.creative.vocabulary import Mask
from bidtrie.engine.tree_batch import Float32
from bidtrie.requests import Sampling

#: Of 24 greedy descriptions of at most 90 and 300 characters by SmolLM2-135M, 10 repeated a pair of words without it,
#: 7 with 1.1, 2 with 1.2, 1 with 1.3.
REPETITION_PENALTY = 1.2

Float64 = NDArray[np.float64]
Ids = NDArray[np.intp]


def penalized(logits: Float32, seen: Sequence[int], penalty: float) -> Float32:
    """Logits with those of the tokens `seen` divided by `penalty` where positive and multiplied where negative."""
    if penalty == 1 or not seen:
        return logits
    logits = logits.copy()
    ids = list(set(seen))
    values = logits[ids]
    logits[ids] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))
    return logits


def greedy(logits: Float32, mask: Mask, seen: Sequence[int], penalty: float) -> int | None:
    """The likeliest token of the mask after the penalty (ties: the lowest id); None: none has a probability over 0."""
    token = int(logits.argmax())
    # A penalty makes nothing likelier, so what is likeliest of all and not penalized needs no second look.
    if penalty < 1 or not mask[token] or token in seen:
        masked = np.where(mask, penalized(logits, seen, penalty), np.float32(-np.inf))
        token = int(masked.argmax())
        return token if masked[token] > -np.inf else None
    return token if logits[token] > -np.inf else None


def distribution(logits: Float32, mask: Mask, sampling: Sampling) -> tuple[Ids, Float64]:
    """Token ids that may be drawn, ascending, and their probabilities (float64, sum 1); temperature is over 0.

    As transformers: ties with the k-th likeliest token are all kept; of the tokens sorted by probability the least
    likely are dropped while their sum is at most 1 - top_p; one token is always kept.
    """
    ids = np.flatnonzero(mask & (logits > -np.inf))
    if not len(ids):
        return ids, np.empty(0)
    values = logits[ids].astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(ids):
        keep = values >= np.partition(values, -sampling.top_k)[-sampling.top_k]
        ids, values = ids[keep], values[keep]
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    if sampling.top_p < 1:
        # Tokens under this share are dropped whatever their order: most of the vocabulary need not be sorted.
        likely = np.flatnonzero(weights >= (1 - sampling.top_p) / len(weights))
        rest = 1 - weights[likely].sum()
        order = likely[np.argsort(weights[likely], kind="stable")]
        dropped = rest + np.cumsum(weights[order]) <= 1 - sampling.top_p
        dropped[-1] = False
        keep = np.sort(order[~dropped])
        ids, weights = ids[keep], weights[keep]
        weights /= weights.sum()
    return ids, weights


class Sampler:
    """Picks the tokens of one candidate of one slot."""

    def __init__(
        self, sampling: Sampling, slot: str, candidate: int, penalty: float = REPETITION_PENALTY
    ) -> None:
        """`sampling.seed` must be set when the temperature is over 0."""
        self._penalty = penalty
        self._sampling = sampling
        self._candidate = candidate
        digest = hashlib.blake2b(slot.encode(), digest_size=8).digest()
        self._key = [sampling.seed or 0, int.from_bytes(digest, "little")]

    def uniform(self, position: int, attempt: int) -> float:
        """The random number in [0, 1) of a draw."""
        counter = np.array([0, attempt, position, self._candidate], np.uint64)
        bits = np.random.Philox(key=np.array(self._key, np.uint64), counter=counter)
        return float(np.random.Generator(bits).random())

    def pick(self, logits: Float32, mask: Mask, path: Sequence[int], attempt: int = 0) -> int | None:
        """A token among those of the mask, or None if none of them has a probability over 0.

        path: the text's tokens before it; attempt: tells draws at the same position apart.
        """
        if self._sampling.temperature == 0:
            return greedy(logits, mask, path, self._penalty)
        logits = penalized(logits, path, self._penalty)
        ids, weights = distribution(logits, mask, self._sampling)
        if not len(ids):
            return None
        return int(ids[draw(weights, self.uniform(len(path), attempt))])


def draw(weights: Float64, uniform: float) -> int:
    """The index drawn by inverting the cumulative distribution; an index of weight 0 is never drawn."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    # Rounding may carry the product up to the total.
    return index if index < len(weights) else int(np.flatnonzero(weights)[-1])


def stop_log_probability(row: Float32, logsumexp: float, stop_ids: Ids) -> float:
    """Log-probability that the model stops: the sum over all stop tokens, from its own full softmax."""
    values = row[stop_ids].astype(np.float64)
    top = values.max(initial=-np.inf)
    if top == -np.inf:
        return -np.inf
    return float(top + np.log(np.exp(values - top).sum()) - logsumexp)
