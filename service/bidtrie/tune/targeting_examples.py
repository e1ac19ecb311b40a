"""Pages as examples, in the very prompt that the service uses.

Fields are left out at random (a bid request often has nothing but a title, or nothing but an app's name), and a share
of the examples is asked among a shortlist only, the retriever's nearest segments and the right one: the siblings that
are easily taken for each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bidtrie.evaluation.pages import Page
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import PageContext
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import render, retrieval_text
from bidtrie.trie.trie import Trie
from bidtrie.tune.example import Choice, Example

#: The segments nearest to a text, nearest first.
Nearest = Callable[[str, int], list[int]]


@dataclass(frozen=True, slots=True)
class Shares:
    """How often something is done to an example, each between 0 and 1."""

    no_description: float = 0.5
    no_keywords: float = 0.5
    no_title: float = 0.1
    shortlist: float = 0.25


#: As the pages are, all segments in question: how a model is judged.
PLAIN = Shares(0.0, 0.0, 0.0, 0.0)

_SHORTLIST = 20


class TargetingExamples:
    """Makes examples of pages for one trie and tokenizer."""

    def __init__(
        self, catalog: Catalog, trie: Trie, tokenizer: Tokenizer, max_context_tokens: int, nearest: Nearest
    ) -> None:
        self._trie = trie
        self._tokenizer = tokenizer
        self._max_context_tokens = max_context_tokens
        self._nearest = nearest
        self._segments = {segment.path: i for i, segment in enumerate(catalog.segments)}

    def make(self, page: Page, shares: Shares, random: np.random.Generator) -> Example:
        """One example; of several right answers, one at random."""
        context = _with_fields_left_out(page.context, shares, random)
        paths = [path for path in page.expected if path in self._segments]
        segment = self._segments[paths[random.integers(len(paths))]]
        prompt = render(context, self._tokenizer, self._max_context_tokens)
        words = self._trie.path_tokens(segment).tolist()
        allowed = None
        if random.random() < shares.shortlist:
            near = self._nearest(retrieval_text(context), _SHORTLIST)
            allowed = self._trie.allow([segment, *near], [])
        choices = []
        for i, node in enumerate(self._trie.path_nodes(segment).tolist()):
            above = int(self._trie.parent[node])
            children = np.asarray(self._trie.children(above)) if allowed is None else allowed.children(above)
            if len(children) > 1:
                right = int(np.flatnonzero(children == node)[0])
                choices.append(
                    Choice(len(prompt) - 1 + i, self._trie.token[children].astype(np.int64), right)
                )
        return Example((*prompt, *words[:-1]), len(prompt) - 1, tuple(words), tuple(choices))


def _with_fields_left_out(context: PageContext, shares: Shares, random: np.random.Generator) -> PageContext:
    """The context with less, but never with nothing."""
    draws = random.random(3)
    less = replace(
        context,
        description="" if draws[0] < shares.no_description else context.description,
        keywords=() if draws[1] < shares.no_keywords else context.keywords,
    )
    if draws[2] < shares.no_title and (context.description or context.keywords):
        return replace(
            context, title="", description="" if context.keywords and draws[0] < 0.5 else context.description
        )
    return context if less.is_empty() else less
