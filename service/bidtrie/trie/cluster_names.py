"""Names for groups of keywords: the words that tell a group from the others that it was split from.

A word's weight is its term of the Kullback-Leibler divergence of the group's texts from those of the group above: the
share of the group's texts that hold it, times the logarithm of how much larger that is than the share above.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from bidtrie.retrieval.words import words_as_written
from bidtrie.trie.catalog import MAX_TIER_LENGTH
from bidtrie.trie.cluster_vectors import Int64, Rows

# Words of a name; more only where siblings would be named alike.
_WORDS = 2
_MOST_WORDS = 6
# A second word must tell at least this share of what the first tells.
_LEAST_SHARE = 0.5


class GroupNames:
    """Names groups of texts after their words, or after a text where they have none in common."""

    def __init__(self, texts: Sequence[str], vectors: Rows) -> None:
        """vectors: a row for each text."""
        self._texts = texts
        self._vectors = vectors
        terms: dict[str, int] = {}
        written: list[Counter[str]] = []
        held: list[int] = []
        counts = []
        for text in texts:
            found = dict(words_as_written(text))
            for word, form in found.items():
                term = terms.setdefault(word, len(terms))
                if term == len(written):
                    written.append(Counter())
                written[term][form] += 1
                held.append(term)
            counts.append(len(found))
        self._begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._terms = np.array(held, np.int64)
        # The form that is written most often, the first in order of equals.
        self._forms = [min(forms, key=lambda form: (-forms[form], form)) for forms in written]

    def of(self, above: Int64, groups: Sequence[Int64]) -> list[str]:
        """Names for groups that the rows `above` were split into, no two alike."""
        everywhere = np.bincount(self._held(above), minlength=len(self._forms))
        names: list[str] = []
        taken: set[str] = set()
        for group in groups:
            name = next(n for n in self._choices(group, everywhere, len(above)) if n.casefold() not in taken)
            taken.add(name.casefold())
            names.append(name)
        return names

    def _choices(self, group: Int64, everywhere: Int64, above: int) -> Iterator[str]:
        """Names from the best to those that nothing else can have."""
        held, count = np.unique(self._held(group), return_counts=True)
        share = count / len(group)
        tells = share * np.log(share / (everywhere[held] / above))
        order = np.lexsort((held, -tells))
        order = order[tells[order] > 0]
        best = [self._forms[held[i]] for i in order[:_MOST_WORDS]]
        second = len(order) > 1 and tells[order[1]] >= _LEAST_SHARE * tells[order[0]]
        centre = self._most_central(group)
        for size in range(_WORDS if second else 1, len(best) + 1):
            if len(name := ", ".join(best[:size])) <= MAX_TIER_LENGTH:
                yield name
        yield centre
        for number in range(2, 1 << 31):
            suffix = f" ({number})"
            yield (best[0] if best else centre)[: MAX_TIER_LENGTH - len(suffix)].rstrip() + suffix

    def _held(self, rows: Int64) -> Int64:
        """The words of rows, each once a row: int64."""
        counts = self._begin[rows + 1] - self._begin[rows]
        ends = np.cumsum(counts)
        at = np.repeat(self._begin[rows] - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)
        terms: Int64 = self._terms[at]
        return terms

    def _most_central(self, group: Int64) -> str:
        """The text that is most similar to all of the group together; the first of equals."""
        rows = self._vectors.take(group)
        columns, at = np.unique(rows.column, return_inverse=True)
        sums = np.bincount(at, rows.weight, minlength=len(columns))
        similar = np.bincount(rows.row_of_entries(), sums[at] * rows.weight, minlength=len(rows))
        return self._texts[int(group[np.argmax(np.round(similar, 6))])]
