"""What the model is shown, and what it should have answered, as tokens."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few tokens is right: a branching of the trie.

    row         the token of the example whose logits decide
    candidates  the tokens among which they decide: int64 [k], k > 1
    right       which of them is right
    beside      what others say for each candidate, added to its logit: float32 [k]; None: nothing
    """

    row: int
    candidates: Int64
    right: int
    beside: Float32 | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One pair, once through a prompt.

    tokens  what follows the kind's shared prefix: the rest of the prompt, then the answer but for its last token
    answer  where the answer's first token is predicted: row `answer` + i predicts answer token i
    words   the answer's tokens, terminator included
    choices the answer's branchings; empty for free text
    """

    tokens: tuple[int, ...]
    answer: int
    words: tuple[int, ...]
    choices: tuple[Choice, ...] = ()
