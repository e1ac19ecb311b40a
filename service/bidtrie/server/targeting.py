"""The Targeting service."""

from bidtrie.server.context import Context
from bidtrie.server.deadline import Arrival, within
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.server.targeting_messages import target_query, target_response
from bidtrie.v1 import targeting_pb2, targeting_pb2_grpc


class Targeting(targeting_pb2_grpc.TargetingServicer):
    """Which segments fit this page, app or user?"""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def Target(  # noqa: N802 (gRPC's name)
        self, request: targeting_pb2.TargetRequest, context: Context
    ) -> targeting_pb2.TargetResponse:
        arrival = Arrival(context.time_remaining())
        with self._lifecycle.call() as backend:
            request_id, query = target_query(request, arrival)
            async with within(query.deadline):
                answer = await backend.target(query)
            return target_response(request_id, answer, arrival)
