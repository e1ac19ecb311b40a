"""Pages as examples, in the very prompt that the service uses.

Fields are left out at random (a bid request often has nothing but a title, or nothing but an app's name), and a share
of the examples is asked among a shortlist only, the retriever's nearest segments and the right one: the siblings that
are easily taken for each other. A share may be learned beside the retriever, as the two are served together: a
child's logit gets the best of the retriever's scores below it, so that what the retriever knows need not be learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bidtrie.evaluation.pages import Page
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import PageContext
from bidtrie.retrieval.base import Retriever
from bidtrie.retrieval.folds import fold_of
from bidtrie.trie.catalog import Catalog, Int32
from bidtrie.trie.prompt import render, retrieval_text
from bidtrie.trie.trie import Trie
from bidtrie.tune.example import Choice, Example, Float32


@dataclass(frozen=True, slots=True)
class Shares:
    """How often something is done to an example, each between 0 and 1."""

    no_description: float = 0.5
    no_keywords: float = 0.5
    no_title: float = 0.1
    shortlist: float = 0.25
    beside_retriever: float = 0.0


#: As the pages are, all segments in question: how a model is judged.
PLAIN = Shares(0.0, 0.0, 0.0, 0.0, 0.0)

_SHORTLIST = 20


class TargetingExamples:
    """Makes examples of pages for one trie and tokenizer."""

    def __init__(
        self,
        catalog: Catalog,
        trie: Trie,
        tokenizer: Tokenizer,
        max_context_tokens: int,
        retrievers: Sequence[Retriever],
        retriever_weight: float,
    ) -> None:
        """`retrievers`: over the same catalog; one, or one a fold (`retrieval.folds`).

        Their scores count `retriever_weight` times, in nats.
        """
        self._trie = trie
        self._tokenizer = tokenizer
        self._max_context_tokens = max_context_tokens
        self._retrievers = retrievers
        self._retriever_weight = np.float32(retriever_weight)
        self._segments = {segment.path: i for i, segment in enumerate(catalog.segments)}

    def make(self, page: Page, shares: Shares, random: np.random.Generator) -> Example:
        """One example; of several right answers, one at random."""
        context = _with_fields_left_out(page.context, shares, random)
        paths = [path for path in page.expected if path in self._segments]
        segment = self._segments[paths[random.integers(len(paths))]]
        prompt = render(context, self._tokenizer, self._max_context_tokens)
        words = self._trie.path_tokens(segment).tolist()
        text = retrieval_text(context)
        # By the page as it is, whatever is left out of it.
        retriever = self._retrievers[fold_of(page.context, len(self._retrievers))]
        listed = beside = allowed = None
        if random.random() < shares.shortlist:
            listed = [segment, *(near for near, _ in retriever.shortlist(text, _SHORTLIST))]
            allowed = self._trie.allow(listed, [])
        if random.random() < shares.beside_retriever:
            beside = self._leaf_scores(retriever.scores(text), listed)
        choices = []
        for i, node in enumerate(self._trie.path_nodes(segment).tolist()):
            above = int(self._trie.parent[node])
            children = (
                np.asarray(self._trie.children(above), np.int32)
                if allowed is None
                else allowed.children(above)
            )
            if len(children) > 1:
                right = int(np.flatnonzero(children == node)[0])
                choices.append(
                    Choice(
                        len(prompt) - 1 + i,
                        self._trie.token[children].astype(np.int64),
                        right,
                        None if beside is None else self._best_below(beside, children),
                    )
                )
        return Example((*prompt, *words[:-1]), len(prompt) - 1, tuple(words), tuple(choices))

    def _leaf_scores(self, scores: Float32, listed: list[int] | None) -> Float32:
        """What the retriever's scores count, in the trie's order of segments: float32 [N]."""
        scores = scores * self._retriever_weight
        if listed is not None:
            others = np.ones(len(scores), np.bool_)
            others[listed] = False
            scores[others] = -np.inf
        return scores[self._trie.leaf_segments]

    def _best_below(self, leaf_scores: Float32, nodes: Int32) -> Float32:
        """The best score of a segment at or below each node: float32 [k]."""
        ranges = zip(*self._trie.leaf_range(nodes), strict=True)
        return np.array([leaf_scores[begin:end].max() for begin, end in ranges], np.float32)


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
