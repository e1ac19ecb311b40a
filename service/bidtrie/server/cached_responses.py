"""Responses with cached answers, most of which is encoded already."""

from bidtrie.memo import Memo
from bidtrie.requests import TargetAnswer, TargetQuery
from bidtrie.server.deadline import Arrival
from bidtrie.server.targeting_messages import answer_message
from bidtrie.v1 import common_pb2, targeting_pb2

_MOST = 4096


class CachedResponses:
    """Encodes an answer once, and for each request only what differs: concatenated messages are one merged message.

    See https://protobuf.dev/programming-guides/encoding/#last-one-wins.
    """

    def __init__(self) -> None:
        self._known: Memo[TargetQuery, tuple[TargetAnswer, bytes]] = Memo(_MOST)

    def encoded(
        self, request_id: str, query: TargetQuery, answer: TargetAnswer, age_s: float, arrival: Arrival
    ) -> bytes:
        """A TargetResponse as bytes."""
        known = self._known.get(query)
        if known is None or known[0] is not answer:
            known = self._known[query] = answer, answer_message(answer).SerializeToString()
        own = targeting_pb2.TargetResponse(
            request_id=request_id,
            cache_age_ms=int(1000 * age_s),
            timings=common_pb2.Timings(total_ms=arrival.elapsed_ms()),
        )
        return known[1] + own.SerializeToString()
