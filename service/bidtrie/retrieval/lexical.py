"""Lexical retrieval: BM25 over the words of segments, with evidence for the whole branch.

A segment's text has fields of different weight, its own name, its keywords and the names above it, as in Robertson,
Zaragoza and Taylor, "Simple BM25 extension to multiple weighted fields" (2004). A second BM25 takes each top tier with
all below it for one document: several words that point to different places of one branch support each other.

The constants are the textbook's, or were chosen on 1,182 company descriptions of 78 industries (of the slogan
generation data set of Jin et al., 2021) by the tier-1 topics that fit the industry: the branch's weight brought 7
points of accuracy, the damping of repeated words 2, the others made no difference that such a sample can show.

What is computed beforehand is a handful of vectors (`lexical_arrays`), which `lexical_store` keeps with the catalog.

Own code rather than a library, since the libraries have no fields, no branches and no help for unknown words; bm25s,
the nearest, imports scipy when it is there (0.3 s).
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bidtrie.errors import CatalogError
from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.spelling import SimilarWords, rows_in_range, spelling_arrays
from bidtrie.retrieval.words import words
from bidtrie.trie.array_file import Vector
from bidtrie.trie.catalog import Catalog, Segment

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

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

    def __init__(self, catalog: Catalog, arrays: Mapping[str, Vector] | None = None) -> None:
        """arrays: the catalog's `lexical_arrays`, where they have been made before; CatalogError if out of range."""
        if arrays is None:
            arrays = lexical_arrays(catalog)
        vocabulary = bytes(arrays["vocabulary"]).decode().split("\n") if len(arrays["vocabulary"]) else []
        self._terms = {word: i for i, word in enumerate(vocabulary)}
        self._branch: Int32 = arrays["branch"]
        branches = int(self._branch.max()) + 1
        in_range = self._branch.min() >= 0 and branches <= len(catalog)
        if self._branch.dtype != np.int32 or len(self._branch) != len(catalog) or not in_range:
            raise CatalogError("lexical index: branches out of range")
        self._segments = Bm25(len(catalog), len(vocabulary), arrays, "segment")
        self._branches = Bm25(branches, len(vocabulary), arrays, "branch")
        self._similar = SimilarWords(len(vocabulary), arrays, LEAST_SIMILARITY)

    def scores(self, query: str) -> Float32:
        """How well each segment fits a text: float32 [N], 0 where neither it nor its branch has a word in common."""
        terms = self.query_weights(query)
        result = self._segments.scores(terms)
        branches = self._branches.scores(terms)
        if branches.any():
            result += np.take(np.float32(BRANCH_WEIGHT) * branches, self._branch)
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


#: The vectors of `lexical_arrays`, in the order in which they are stored.
LEXICAL_ARRAYS = (
    "vocabulary",
    "branch",
    "segment_begin",
    "segment_documents",
    "segment_weights",
    "branch_begin",
    "branch_documents",
    "branch_weights",
    "grams",
    "gram_begin",
    "gram_words",
    "gram_counts",
)


def lexical_arrays(catalog: Catalog) -> dict[str, Vector]:
    """All that `LexicalRetriever` computes of a catalog beforehand.

    vocabulary           uint8, the distinct words in order, in UTF-8, a newline between two
    branch               int32 [N], each segment's top tier, in order of first appearance
    KIND_begin           int64 [words + 1], where each word's documents begin, for the kinds "segment" and "branch"
    KIND_documents       int32, ascending within a word
    KIND_weights         float32, what the word contributes to the document's score
    and `spelling_arrays`
    """
    found = _Occurrences(catalog)
    # By segment and word, the occurrences in their order: sums of weights do not depend on how they are computed.
    key = found.segment.astype(np.int64) * len(found.vocabulary) + found.term
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    frequency: Float64 = np.bincount(group, found.weight[order]).astype(np.float64)
    # Back to the order of a segment's text, in which its length is summed.
    first = order[starts]
    by_place = np.argsort(first)
    segment, term = found.segment[first[by_place]], found.term[first[by_place]]
    holding = found.branch[segment].astype(np.int64) * len(found.vocabulary) + term
    pairs, count = np.unique(holding, return_counts=True)
    branch, branch_term = np.divmod(pairs, max(len(found.vocabulary), 1))
    return {
        "vocabulary": np.frombuffer("\n".join(found.vocabulary).encode(), np.uint8),
        "branch": found.branch,
        **_contributions(
            "segment", segment, term, frequency[by_place], len(catalog), len(found.vocabulary), B
        ),
        **_contributions(
            "branch",
            branch.astype(np.int32),
            branch_term.astype(np.int32),
            count.astype(np.float64),
            int(found.branch.max()) + 1,
            len(found.vocabulary),
            BRANCH_B,
        ),
        **spelling_arrays(found.vocabulary),
    }


class _Occurrences:
    """Every word of every segment: who holds it, which word it is, and the weight of the field it stands in.

    vocabulary  the distinct words in order
    branch      int32 [N], each segment's top tier, in order of first appearance
    segment     int32 [occurrences], ascending; within a segment: its name, its keywords, the names above it
    term        int32 [occurrences], the word's position in the vocabulary
    weight      float64 [occurrences]
    """

    def __init__(self, catalog: Catalog) -> None:
        seen: dict[str, int] = {}
        above: dict[str, list[int]] = {}
        tops: dict[str, int] = {}
        branch, term, counts = array("i"), array("i"), array("i")

        def terms(text: str) -> list[int]:
            return [seen.setdefault(word, len(seen)) for word in words(text)]

        for each in catalog.segments:
            branch.append(tops.setdefault(each.path[0], len(tops)))
            own = terms(each.name)
            described = [i for keyword in each.keywords for i in terms(keyword)]
            ancestors: list[int] = []
            for name in each.path[:-1]:
                # The names above come again and again.
                if (found := above.get(name)) is None:
                    found = above[name] = terms(name)
                ancestors += found
            term.extend(own)
            term.extend(described)
            term.extend(ancestors)
            counts.extend((len(own), len(described), len(ancestors)))
        self.vocabulary = sorted(seen)
        place = np.empty(len(seen), np.int32)
        place[np.array([seen[word] for word in self.vocabulary], np.int64)] = np.arange(len(seen))
        fields = np.array(counts, np.int32).reshape(-1, 3)
        self.branch = np.array(branch, np.int32)
        self.term: Int32 = place[np.array(term, np.int32)]
        self.segment = np.repeat(np.arange(len(fields), dtype=np.int32), fields.sum(axis=1))
        weights = np.array([OWN_WEIGHT, KEYWORD_WEIGHT, ANCESTOR_WEIGHT])
        self.weight: Float64 = np.repeat(np.tile(weights, len(fields)), fields.ravel())


def _contributions(
    kind: str, document: Int32, term: Int32, frequency: Float64, documents: int, terms: int, b: float
) -> dict[str, Vector]:
    """What each word contributes to each document's BM25, in compressed sparse rows by word.

    A word in n of N documents, with frequency f in a document of length l (a sum of frequencies), contributes
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * l / mean l)).

    document, term, frequency  the words of each document, each once; documents ascending
    """
    lengths = np.bincount(document, frequency, minlength=documents)
    mean = lengths.mean() or 1.0
    holding = np.bincount(term, minlength=terms).astype(np.float64)
    rarity = np.log1p((documents - holding + 0.5) / (holding + 0.5))
    damping = K1 * (1.0 - b + b * lengths[document] / mean)
    weight = rarity[term] * frequency * (K1 + 1.0) / (frequency + damping)
    order = np.argsort(term, kind="stable")
    return {
        f"{kind}_begin": np.concatenate([[0], np.cumsum(holding, dtype=np.int64)]),
        f"{kind}_documents": document[order],
        f"{kind}_weights": weight[order].astype(np.float32),
    }


class Bm25:
    """BM25 with each word's contribution to each document computed beforehand: see `_contributions`."""

    def __init__(self, documents: int, terms: int, arrays: Mapping[str, Vector], kind: str) -> None:
        """Over the vectors of a kind of `lexical_arrays`; CatalogError if they are out of range."""
        self._count = documents
        self._begin: Int64 = arrays[f"{kind}_begin"]
        self._documents: Int32 = arrays[f"{kind}_documents"]
        self._weights: Float32 = arrays[f"{kind}_weights"]
        sound = len(self._begin) == terms + 1 and rows_in_range(self._begin, self._documents, documents)
        if not sound or self._weights.dtype != np.float32 or len(self._weights) != len(self._documents):
            raise CatalogError(f"lexical index: the {kind} rows are out of range")

    def scores(self, terms: Mapping[int, float]) -> Float32:
        """The sum over terms of weight times contribution: float32 [documents]."""
        result = np.zeros(self._count, np.float32)
        for term, weight in terms.items():
            rows = slice(self._begin[term], self._begin[term + 1])
            result[self._documents[rows]] += np.float32(weight) * self._weights[rows]
        return result
