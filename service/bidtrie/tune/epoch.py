"""The examples of each pass over the pairs, packed: the same for the same seed, whenever it is asked."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bidtrie.tune.creative_examples import CreativeExamples
from bidtrie.tune.example import Example
from bidtrie.tune.packing import Pack, grouped, pack
from bidtrie.tune.pairs import Pairs
from bidtrie.tune.targeting_examples import PLAIN, Shares, TargetingExamples

_HELD_OUT_SEED = 7


class Epochs:
    """Turns pairs into packs."""

    def __init__(
        self,
        pairs: Pairs,
        targeting: TargetingExamples | None,
        creative: CreativeExamples,
        targeting_prefix: Sequence[int],
        pack_tokens: int,
    ) -> None:
        self._pairs = pairs
        self._targeting = targeting
        self._creative = creative
        self._targeting_prefix = targeting_prefix
        self._pack_tokens = pack_tokens

    def training(self, seed: int, epoch: int, shares: Shares) -> list[Pack]:
        """The packs of one pass, shuffled: the n-th example differs from pass to pass, and from nothing else."""
        order = np.random.default_rng([seed, epoch])
        packs = list(self._packs(lambda i: np.random.default_rng([seed, epoch, i]), shares, order))
        return [packs[i] for i in order.permutation(len(packs))]

    def held_out(self) -> list[Pack]:
        """The packs to judge by: pages as they are."""
        return list(self._packs(lambda i: np.random.default_rng([_HELD_OUT_SEED, i]), PLAIN, None))

    def _packs(
        self,
        random: Callable[[int], np.random.Generator],
        shares: Shares,
        order: np.random.Generator | None,
    ) -> Iterator[Pack]:
        kinds: list[tuple[Sequence[int], list[Example]]] = []
        if self._targeting is not None:
            make = self._targeting.make
            pages = [make(page, shares, random(i)) for i, page in enumerate(self._pairs.pages)]
            kinds.append((self._targeting_prefix, pages))
        kinds.append((self._creative.prefix, [self._creative.make(each) for each in self._pairs.products]))
        for prefix, examples in kinds:
            lengths = [len(example.tokens) for example in examples]
            turn = np.arange(len(examples)) if order is None else order.permutation(len(examples))
            for group in grouped(lengths, turn.tolist(), max(self._pack_tokens - len(prefix), 1)):
                yield pack(prefix, [examples[i] for i in group])
