"""The Targeting service."""

from bidtrie.server.answer_kind import kind_of_answer
from bidtrie.server.context import Context
from bidtrie.server.deadline import Arrival, Budget, is_late, within
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.server.metrics import Metrics
from bidtrie.server.targeting_messages import target_query, target_response
from bidtrie.v1 import targeting_pb2, targeting_pb2_grpc


class Targeting(targeting_pb2_grpc.TargetingServicer):
    """Which segments fit this page, app or user?"""

    def __init__(self, lifecycle: Lifecycle, budget: Budget, metrics: Metrics) -> None:
        self._lifecycle = lifecycle
        self._budget = budget
        self._metrics = metrics

    async def Target(  # noqa: N802 (gRPC's name)
        self, request: targeting_pb2.TargetRequest, context: Context
    ) -> targeting_pb2.TargetResponse:
        arrival = Arrival(context.time_remaining(), self._budget)
        with self._lifecycle.call() as backend:
            request_id, query = target_query(request, arrival)
            async with within(query.deadline):
                answer = await backend.target(query)
            response = target_response(request_id, answer, arrival)
            self._metrics.answered(
                "Target", answer.source, kind_of_answer(answer), late=is_late(query.deadline)
            )
            return response
