"""One text in the making: what to feed next, where it may end, and which end is best.

The model is asked freely first: what would it go on with if there were no limit? If that fits, it is taken. If it is a
stop, the text ends. If it does not fit, then either it begins a new word, so the text so far is complete in
words, and the next token is drawn among the stops and the new words that fit; or it continues a word that has no room,
and the text goes back to where that word began and draws another word there. So a stop is never the mere
consequence of everything else being masked in the middle of a word.

Every place where the model stopped or went on to a new word is a possible end. Where the model stops and the limit has
played no part, that is the end. Else the limit cuts the text short, and the end is the place with the highest
log-probability of stopping there, less what the limit had cost up to there: the log-probability that the tokens drawn
for want of room lacked to the likeliest ones.

Nodes may be computed ahead of the text, as guesses (speculative decoding with trees: Leviathan et al. 2023, arXiv
2211.17192; Miao et al. 2024, arXiv 2305.09781). Here tokens are drawn as if there were none: where the drawn token has
been computed ahead, its answer is at hand, and where it has not, it is fed. So texts, scores and pieces are those of
plain decoding, drawn ones too, since a draw's random number depends on its place only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bidtrie.creative.constraint import Constraint, TextState
from bidtrie.creative.sampling import Sampler, stop_log_probability
from bidtrie.creative.vocabulary import Mask
from bidtrie.drafts.drafter import Root
from bidtrie.drafts.trigger import Guess, Trigger
from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import PREFIX_END, Float32, kept_parent

#: Words tried in place of ones that had no room, in a text that has a possible end already, and in one that has none.
RETRIES, FIRST_WORD_RETRIES = 3, 24


@dataclass(frozen=True, slots=True)
class Ending:
    """A possible end.

    score: mean log-probability a token, the stop included, under the model's own full softmax; merit: what ends of one
    text are compared by.
    """

    text: str
    score: float
    tokens: int
    merit: float


@dataclass(slots=True, eq=False)
class Computed:
    """What a step said of a node, and of the nodes below it that were fed ahead, by token; valid until the next step.

    guess: what the sources said of its continuations, for the trigger to learn from; empty: they were not asked.
    """

    node: int
    row: Float32
    logsumexp: float
    guess: Guess = field(default_factory=list)
    below: dict[int, "Computed"] = field(default_factory=dict)


@dataclass(slots=True)
class _Point:
    """A place in the text: what the model says there, what the limit had cost, and what was tried in vain."""

    state: TextState
    row: Float32
    logsumexp: float
    path: tuple[int, ...]
    total: float
    cost: float = 0.0
    gap: float = 0.0
    """What the token that was drawn here adds to the cost."""
    banned: set[int] = field(default_factory=set)
    below: dict[int, Computed] = field(default_factory=dict)
    """What the last step computed ahead of here."""
    guess: Guess = field(default_factory=list)


class Candidate:
    """Drives one sequence, whose committed tokens are the prompt and then the text up to its last boundary.

    The nodes of the word in the making are kept, so that it can be dropped whole. `taken` holds first tokens that
    other candidates of the slot began with; it is shared, and None where they may begin alike.
    """

    def __init__(
        self,
        engine: Engine,
        sequence: int,
        constraint: Constraint,
        sampler: Sampler,
        limit: int,
        *,
        row: Float32,
        logsumexp: float,
        taken: set[int] | None = None,
        on_text: Callable[[str], None] | None = None,
        trigger: Trigger | None = None,
    ) -> None:
        """`trigger` is told what was drawn where sources had been asked."""
        self.sequence = sequence
        self.best: Ending | None = None
        #: Tokens taken since the last step that it had computed ahead.
        self.accepted = 0
        self._engine = engine
        self._constraint = constraint
        self._sampler = sampler
        self._limit = limit
        self._capacity = engine.spec.context_length - engine.length(sequence)
        self._taken = taken
        self._on_text = on_text
        self._trigger = trigger
        self._here = _Point(TextState(), row, logsumexp, (), 0.0)
        self._boundary = self._here
        self._word: list[int] = []
        self._word_token = -1
        self._attempt = 0
        self._sent = ""

    @property
    def parent(self) -> int:
        """What the token that `choose` returned hangs on, as a TreeBatch writes it."""
        return kept_parent(self._word[-1]) if self._word else PREFIX_END

    @property
    def shares_first_tokens(self) -> bool:
        """Whether the first token depends on other candidates'."""
        return self._taken is not None

    @property
    def may_begin_anew(self) -> bool:
        """Whether the text may yet go back to its first word."""
        return not self._boundary.path

    @property
    def root(self) -> Root:
        """Where guesses may hang: below the token that `choose` returned."""
        here = self._here
        return Root(here.state, here.path, self._limit, self._capacity - len(here.path))

    def choose(self) -> int | None:
        """The token to feed next; None: the text is finished, and `best` is its end, if it has any.

        Tokens that the last step computed ahead are taken at once.
        """
        while True:
            token, here = self._draw(), self._here
            if here.guess and self._trigger is not None:
                self._trigger.learn(here.guess, token)
                here.guess = []  # the text may come back, and then what was guessed is barred
            if token is not None and not self._constraint.vocabulary.stop[token]:
                self._take(token)
                ahead = here.below.get(token)
                if ahead is None:
                    return token
                self.accepted += 1
                self._enter(ahead)
            elif token is not None or not self._back():
                return None

    def feed(self, computed: Computed) -> None:
        """Give the step's answer for the token that `choose` returned, right after the step."""
        # The nodes of steps before are gone.
        self._boundary.below = {}
        self.accepted = 0
        self._enter(computed)

    def _enter(self, computed: Computed) -> None:
        here = self._here
        self._engine.keep([computed.node])
        self._word.append(computed.node)
        here.row, here.logsumexp = computed.row, computed.logsumexp
        here.below, here.guess = computed.below, computed.guess

    def close(self) -> None:
        """Give everything back to the engine."""
        self._engine.release(self._word)
        self._word = []
        self._engine.close(self.sequence)

    def _draw(self) -> int | None:
        """A token that may be taken, or a stop; None: the word that is begun has no room."""
        here, constraint = self._here, self._constraint
        state, stop = here.state, constraint.vocabulary.stop
        allowed = constraint.allowed(state)
        banned = here.banned if here.path or self._taken is None else here.banned | self._taken
        mask = allowed
        if banned:
            mask = mask.copy()
            mask[list(banned)] = False
        free = self._pick(mask, 0)
        if free is None:
            return None
        if stop[free]:
            self._note_end(final=not here.cost and not here.banned)
            return free
        # A text that fills the model's context ends as one that fills its limit.
        limit = self._limit if len(here.path) < self._capacity else 0
        token: int | None = free
        if not constraint.fits(state, free, limit):
            fitting = constraint.fitting(state, limit)
            if state.is_between or state.pending:
                token = self._pick(mask & fitting, 1)
            elif constraint.ends_word(state, free):
                self._note_end()
                token = self._pick(mask & (fitting & constraint.vocabulary.starts_word | stop), 1)
                token = int(constraint.vocabulary.stop_ids[0]) if token is None else token
            else:
                token = None
        if token is not None and (token != free or here.banned):
            here.gap = float(here.row.max(where=allowed, initial=-np.inf) - here.row[token])
        return token

    def _pick(self, mask: Mask, again: int) -> int | None:
        return self._sampler.pick(self._here.row, mask, self._here.path, 2 * self._attempt + again)

    def _take(self, token: int) -> None:
        here = self._here
        if self._word and self._constraint.ends_word(here.state, token):
            self._note_end()
            self._engine.commit(self.sequence, self._word)
            self._word = []
            here.row = here.row.copy()  # or it would keep the rows of everybody else in that step alive
            self._boundary = here
        if not self._word:
            self._word_token = token
        if not here.path and self._taken is not None:
            self._taken.add(token)
        gain = float(here.row[token]) - here.logsumexp
        state = self._constraint.advance(here.state, token)
        self._here = _Point(
            state, here.row, here.logsumexp, (*here.path, token), here.total + gain, here.cost + here.gap
        )

    def _back(self) -> bool:
        """Drop the word that is begun and bar its first token there; False: enough was tried."""
        tried_enough = self._attempt >= (RETRIES if self.best else FIRST_WORD_RETRIES)
        if self._here is self._boundary or tried_enough:
            return False
        self._engine.release(self._word)
        self._word = []
        self._attempt += 1
        self._boundary.banned.add(self._word_token)
        self._here = self._boundary
        return True

    def _note_end(self, final: bool = False) -> None:
        """The text may end here; with `final` it does."""
        here = self._here
        stop = stop_log_probability(here.row, here.logsumexp, self._constraint.vocabulary.stop_ids)
        merit = stop - here.cost
        if self.best is not None and merit < self.best.merit and not final:
            return
        # Ends only ever move forward, so what was sent stays part of the text.
        score = (here.total + stop) / (len(here.path) + 1)
        self.best = Ending(here.state.data.decode(), score, len(here.path), merit)
        if self._on_text is not None and len(self.best.text) > len(self._sent):
            self._on_text(self.best.text[len(self._sent) :])
            self._sent = self.best.text
