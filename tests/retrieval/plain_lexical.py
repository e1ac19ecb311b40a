"""The lexical retriever with dictionaries, segment by segment: what the vectors must give to the bit."""

from collections import Counter

import numpy as np
from bidtrie.retrieval import lexical
from bidtrie.retrieval.lexical import field_weights
from bidtrie.retrieval.words import words
from bidtrie.trie.catalog import Catalog


class PlainLexical:
    def __init__(self, catalog: Catalog) -> None:
        texts = [field_weights(segment) for segment in catalog.segments]
        tops = {name: i for i, name in enumerate(catalog.tier1)}
        self.branch = [tops[segment.path[0]] for segment in catalog.segments]
        branches: list[Counter[str]] = [Counter() for _ in tops]
        for branch, text in zip(self.branch, texts, strict=True):
            branches[branch].update(text.keys())
        self.vocabulary = sorted(set().union(*texts))
        self.segments = _contributions(texts, lexical.B)
        self.branches = _contributions(branches, lexical.BRANCH_B)

    def scores(self, query: str) -> np.ndarray:
        weights: dict[str, float] = {}
        for word, count in Counter(words(query[: lexical.MAX_QUERY_LENGTH])).items():
            weight = 1.0 + float(np.log(count))
            known = word
            if word not in self.vocabulary:
                known, similarity = self.nearest(word)
                if similarity < lexical.LEAST_SIMILARITY:
                    continue
                weight *= lexical.SIMILAR_WEIGHT * similarity
            weights[known] = weights.get(known, 0.0) + weight
        asked = sorted(weights.items())
        own, shared = (_sums(each, asked) for each in (self.segments, self.branches))
        half = np.float32(lexical.BRANCH_WEIGHT)
        return np.array([o + half * shared[b] for o, b in zip(own, self.branch, strict=True)], np.float32)

    def nearest(self, word: str) -> tuple[str, float]:
        grams = _grams(word)
        best, most = "", 0.0
        for known in self.vocabulary if len(word) >= 4 else ():
            other = _grams(known)
            similarity = 2.0 * len(grams & other) / (len(grams) + len(other))
            if similarity > most:
                best, most = known, similarity
        return best, most


def _grams(word: str) -> set[str]:
    marked = f"^{word}$"
    return {marked[i : i + 3] for i in range(len(marked) - 2)}


def _contributions(documents: list[dict[str, float]], b: float) -> list[dict[str, np.float32]]:
    lengths = []
    for document in documents:
        length = 0.0
        for frequency in document.values():
            length += frequency
        lengths.append(length)
    mean = np.array(lengths).mean() or 1.0
    holding = Counter(word for document in documents for word in document)
    found = []
    for document, length in zip(documents, lengths, strict=True):
        weights = {}
        for word, frequency in document.items():
            rarity = np.log1p((len(documents) - holding[word] + 0.5) / (holding[word] + 0.5))
            damping = lexical.K1 * (1.0 - b + b * length / mean)
            weights[word] = np.float32(rarity * frequency * (lexical.K1 + 1.0) / (frequency + damping))
        found.append(weights)
    return found


def _sums(documents: list[dict[str, np.float32]], asked: list[tuple[str, float]]) -> list[np.float32]:
    sums = []
    for document in documents:
        total = np.float32(0)
        for word, weight in asked:
            if word in document:
                total += np.float32(weight) * document[word]
        sums.append(total)
    return sums
