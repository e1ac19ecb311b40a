"""When does a draft pay? Learned hit rates of the sources, and what nodes cost.

Every place where sources were asked and the drawn token is known then teaches their hit rates, whether or not the
draft was fed: so a trigger that feeds nothing still hears when its sources get better, at no cost to the engine. A rate
belongs to a source, the length of the context that it knew, and to greedy or drawn tokens. It does not depend on the
depth in the draft: a node is only reached when all above it was right, and then its context is the text's own.

After many steps in a row without a draft the sources are asked in few steps only.
"""

from bidtrie.drafts.phrase_trie import MOST_CONTEXT

#: How much a new outcome counts once many are known, and what the first guess weighs, in outcomes.
_RATE, _PRIOR_WEIGHT = 1 / 96, 6.0
#: Hit rates taken for granted at first, by length of context. An unknown source is tried and soon known.
_FIRST_RATES = (0.2, 0.4, 0.5)
#: Steps without a draft after which the trigger rests, and how often it then looks.
REST_AFTER, LOOK_EVERY = 48, 8
#: A node must be worth so much more than it costs: neither figure is exact.
_CAUTION = 1.1
#: Seconds that a draft node costs outside of the engine, until that is measured.
_NODE_S = 30e-6


class Rate:
    """An exponentially forgotten share of hits."""

    __slots__ = ("_seen", "value")

    def __init__(self, first: float) -> None:
        self.value = first
        self._seen = _PRIOR_WEIGHT

    def note(self, hit: bool) -> None:
        """Take in an outcome."""
        self._seen += 1
        self.value += max(_RATE, 1 / self._seen) * (hit - self.value)


#: What was guessed at a place: each source that knew the context, by its rate, and what it said.
Guess = list[tuple[Rate, tuple[tuple[int, float], ...]]]


class Trigger:
    """Hit rates and costs of one engine. It belongs to the engines' thread, `rates` to whoever makes drafters."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, bool], tuple[Rate, ...]] = {}
        self._idle = 0
        self._node_s = _NODE_S

    def rates(self, source: str, sampled: bool) -> tuple[Rate, ...]:
        """A source's rates by length of context less one."""
        key = (source, sampled)
        if key not in self._rates:
            self._rates[key] = tuple(Rate(first) for first in _FIRST_RATES[:MOST_CONTEXT])
        return self._rates[key]

    def looks(self) -> bool:
        """Whether the sources should be asked in this step."""
        return self._idle < REST_AFTER or self._idle % LOOK_EVERY == 0

    def decided(self, drafted: bool) -> None:
        """A step has been composed, with drafts or without."""
        self._idle = 0 if drafted else self._idle + 1

    def pays(self, probability: float, gained: float, seconds: float, more_seconds: float) -> bool:
        """Whether one more node makes a step that is expected to write `gained` tokens better value.

        The step takes `seconds` so far and `more_seconds` more with the node. Tokens a second grow with it if its
        probability is over its share of the time, times the tokens.
        """
        return probability * seconds > _CAUTION * gained * (more_seconds + self._node_s)

    def learn(self, guess: Guess, token: int | None) -> None:
        """A token was drawn where sources had been asked (None: none could be, or the text went back)."""
        for rate, children in guess:
            hit = False
            for child, _ in children:
                if child == token:
                    hit = True
                    break
            rate.note(hit)

    def built(self, nodes: int, seconds: float) -> None:
        """Composing drafts of so many nodes took so long."""
        if nodes:
            # A pause of the process is no cost of a node.
            each = min(seconds / nodes, 4 * self._node_s)
            self._node_s += 0.02 * (each - self._node_s)
