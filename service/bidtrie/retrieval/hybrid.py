"""The service's retriever: lexical and semantic scores added up."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.retrieval.lexical_store import load_or_build_retriever
from bidtrie.retrieval.semantic import SemanticRetriever
from bidtrie.retrieval.semantic_store import load_or_build_semantic
from bidtrie.trie.catalog import Catalog

#: The reciprocal of the temperature that the word vectors were trained with: a score is about a logit, so that its
#: weight beside a model's log-probability is of the order of 1, as with BM25's scores alone.
SEMANTIC_WEIGHT = 12.5
#: Chosen on the contexts of bench/data/pages-dev.tsv: see docs/retrieval.md.
LEXICAL_WEIGHT = 0.075


class HybridRetriever(Retriever):
    """SEMANTIC_WEIGHT times the cosine (0 to 1) plus LEXICAL_WEIGHT times BM25."""

    name: ClassVar[str] = "hybrid"
    unrelated: ClassVar[float] = 0.0

    def __init__(self, lexical: LexicalRetriever, semantic: SemanticRetriever) -> None:
        """Both over the same catalog."""
        self._lexical = lexical
        self._semantic = semantic

    def scores(self, query: str) -> Float32:
        """How well each segment fits a text: float32 [N], 0 where nothing speaks for it."""
        result = self._semantic.scores(query)
        result *= np.float32(SEMANTIC_WEIGHT)
        lexical = self._lexical.scores(query)
        lexical *= np.float32(LEXICAL_WEIGHT)
        result += lexical
        return result


def load_or_build_hybrid(folder: Path, catalog: Catalog) -> HybridRetriever:
    """A catalog's retriever, over what is stored in its folder; what is missing or unsound is built and stored."""
    return HybridRetriever(load_or_build_retriever(folder, catalog), load_or_build_semantic(folder, catalog))
