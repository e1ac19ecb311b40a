"""Lexical retrieval: BM25 over the words of segments, with evidence for the whole branch.

A segment's text has fields of different weight, its own name, its keywords and the names above it, as in Robertson,
Zaragoza and Taylor, "Simple BM25 extension to multiple weighted fields" (2004). A second BM25 takes each top tier with
all below it for one document: several words that point to different places of one branch support each other.

The constants are the textbook's, or were chosen on 1,182 company descriptions of 78 industries (of the slogan
generation data set of Jin et al., 2021) by the tier-1 topics that fit the industry: the branch's weight brought 7
points of accuracy, the damping of repeated words 2, the others made no difference that such a sample can show.

Own code rather than a library, since the libraries have no fields, no branches and no help for unknown words; bm25s,
the nearest, imports scipy when it is there (0.3 s).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.spelling import SimilarWords
from bidtrie.retrieval.words import words
from bidtrie.trie.catalog import Catalog, Segment

OWN_WEIGHT = 1.0
KEYWORD_WEIGHT = 0.7
ANCESTOR_WEIGHT = 0.5
#: Saturation of a word's frequency, and how much length counts against a segment; a branch's length is no flaw.
K1 = 1.2
B = 0.75
BRANCH_B = 0.0
BRANCH_WEIGHT = 0.5
#: A word of no segment stands for the most similar one, if it is this similar, with this weight times the similarity.
LEAST_SIMILARITY = 0.5
SIMILAR_WEIGHT = 0.5
#: What counts of a query, in code points: the time is bounded, and a text's beginning is the most telling.
MAX_QUERY_LENGTH = 4_000


class LexicalRetriever(Retriever):
    """BM25 over segments plus BM25 over branches; a few numpy operations a query word."""

    name: ClassVar[str] = "lexical"
    unrelated: ClassVar[float] = 0.0

    def __init__(self, catalog: Catalog) -> None:
        texts = [field_weights(segment) for segment in catalog.segments]
        tops = {name: i for i, name in enumerate(catalog.tier1)}
        self._branch = np.array([tops[segment.path[0]] for segment in catalog.segments], np.int32)
        branches: list[Counter[str]] = [Counter() for _ in tops]
        for branch, text in zip(self._branch.tolist(), texts, strict=True):
            branches[branch].update(text.keys())
        vocabulary = sorted(set().union(*texts))
        self._terms = {word: i for i, word in enumerate(vocabulary)}
        self._segments = Bm25(texts, self._terms, B)
        self._branches = Bm25(branches, self._terms, BRANCH_B)
        self._similar = SimilarWords(vocabulary, LEAST_SIMILARITY)

    def scores(self, query: str) -> Float32:
        """How well each segment fits a text: float32 [N], 0 where neither it nor its branch has a word in common."""
        terms = self.query_weights(query)
        branches = self._branches.scores(terms)
        result: Float32 = self._segments.scores(terms) + np.float32(BRANCH_WEIGHT) * branches[self._branch]
        return result

    def query_weights(self, query: str) -> dict[int, float]:
        """The terms of a query with their weights, in the order of the vocabulary."""
        weights: dict[int, float] = {}
        for word, count in Counter(words(query[:MAX_QUERY_LENGTH])).items():
            weight = 1.0 + float(np.log(count))
            term = self._terms.get(word)
            if term is None:
                similar = self._similar.nearest(word)
                if similar is None:
                    continue
                term, similarity = similar
                weight *= SIMILAR_WEIGHT * similarity
            weights[term] = weights.get(term, 0.0) + weight
        return dict(sorted(weights.items()))


def field_weights(segment: Segment) -> dict[str, float]:
    """The words of a segment, each with the sum of the weights of the fields it stands in, occurrence by occurrence."""
    weights: dict[str, float] = {}
    fields = [(OWN_WEIGHT, segment.name)]
    fields += [(KEYWORD_WEIGHT, keyword) for keyword in segment.keywords]
    fields += [(ANCESTOR_WEIGHT, name) for name in segment.path[:-1]]
    for weight, text in fields:
        for word in words(text):
            weights[word] = weights.get(word, 0.0) + weight
    return weights


class Bm25:
    """BM25 with each word's contribution to each document computed beforehand, in compressed sparse rows by word.

    A word in n of N documents, with frequency f in a document of length l (a sum of frequencies), contributes
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * l / mean l)).
    """

    def __init__(self, documents: Sequence[Mapping[str, float]], terms: Mapping[str, int], b: float) -> None:
        """documents: frequencies by word, not necessarily whole numbers; terms: the position of each word."""
        count = len(documents)
        lengths = np.array([sum(document.values()) for document in documents])
        mean = lengths.mean() or 1.0
        document = np.repeat(np.arange(count, dtype=np.int32), [len(d) for d in documents])
        term = np.array([terms[word] for d in documents for word in d], np.int64)
        frequency = np.array([f for d in documents for f in d.values()], np.float64)
        holding = np.bincount(term, minlength=len(terms)).astype(np.float64)
        rarity = np.log1p((count - holding + 0.5) / (holding + 0.5))
        damping = K1 * (1.0 - b + b * lengths[document] / mean)
        weight = rarity[term] * frequency * (K1 + 1.0) / (frequency + damping)
        order = np.argsort(term, kind="stable")
        self._count = count
        self._begin: NDArray[np.int64] = np.concatenate([[0], np.cumsum(holding, dtype=np.int64)])
        self._documents = document[order]
        self._weights: Float32 = weight[order].astype(np.float32)

    def scores(self, terms: Mapping[int, float]) -> Float32:
        """The sum over terms of weight times contribution: float32 [documents]."""
        result = np.zeros(self._count, np.float32)
        for term, weight in terms.items():
            rows = slice(self._begin[term], self._begin[term + 1])
            result[self._documents[rows]] += np.float32(weight) * self._weights[rows]
        return result
