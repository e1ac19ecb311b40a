"""Reads TargetRequests, and remembers what was read: pages come again and again, only their ids differ."""

from dataclasses import replace

from bidtrie.memo import Memo
from bidtrie.requests import TargetQuery
from bidtrie.server.deadline import Arrival
from bidtrie.server.limits import MAX_REQUEST_ID, MAX_TMAX_MS
from bidtrie.server.targeting_messages import target_query
from bidtrie.v1 import targeting_pb2

#: Requests remembered, each of at most so many bytes: 4 MiB and what the queries take.
_MOST, _MOST_BYTES = 4096, 1024


class TargetReader:
    """`read` is `target_query`; the same bytes, id and tmax aside, give the same query object."""

    def __init__(self) -> None:
        self._known: Memo[bytes, TargetQuery] = Memo(_MOST)

    def read(
        self, request: targeting_pb2.TargetRequest, arrival: Arrival
    ) -> tuple[str, TargetQuery, float | None]:
        """The request's id, its query without a deadline, and the deadline. Raises InvalidInput."""
        request_id = request.request_id
        tmax_ms = request.tmax_ms if request.HasField("tmax_ms") else None
        plain = (
            request.WhichOneof("input") == "context"
            and len(request_id) <= MAX_REQUEST_ID
            and "\0" not in request_id
            and (tmax_ms is None or 1 <= tmax_ms <= MAX_TMAX_MS)
        )
        if not plain:
            # A bid request has its id and time inside, and what is wrong has to be told.
            return _parted(*target_query(request, arrival))
        request.ClearField("request_id")
        request.ClearField("tmax_ms")
        key = request.SerializeToString(deterministic=True)
        query = self._known.get(key)
        if query is None:
            _, query, _ = _parted(*target_query(request, arrival))
            if len(key) <= _MOST_BYTES:
                self._known[key] = query
        return request_id, query, arrival.deadline(tmax_ms)


def _parted(request_id: str, query: TargetQuery) -> tuple[str, TargetQuery, float | None]:
    return request_id, replace(query, deadline=None), query.deadline
