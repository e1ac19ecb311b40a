"""The plainest baseline: the words that a context and a segment have in common."""

from bidtrie.evaluation.targeting import Ranked
from bidtrie.requests import PageContext, ScoredSegment
from bidtrie.retrieval.lexical import LexicalRetriever
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import retrieval_text


class LexicalRanker:
    """The lexical retriever alone, in this process, over the text that a retriever of the service gets."""

    def __init__(self, catalog: Catalog, top: int) -> None:
        self._retriever = LexicalRetriever(catalog)
        self._segments = catalog.segments
        self._top = top

    def __call__(self, context: PageContext) -> Ranked:
        """The best segments, best first; those without a common word are not among them."""
        found = self._retriever.shortlist(retrieval_text(context), self._top)
        segments = ((self._segments[i], score) for i, score in found)
        return Ranked([ScoredSegment(each.id, each.name, each.path, score) for each, score in segments])
