"""The Targeting service."""

from dataclasses import replace

from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.server.answer_kind import kind_of_answer
from bidtrie.server.cached_responses import CachedResponses
from bidtrie.server.context import Context
from bidtrie.server.deadline import Arrival, Budget, is_late, within
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.server.metrics import Metrics
from bidtrie.server.target_reader import TargetReader
from bidtrie.server.targeting_messages import target_response
from bidtrie.v1 import targeting_pb2, targeting_pb2_grpc


class Targeting(targeting_pb2_grpc.TargetingServicer):
    """Which segments fit this page, app or user?"""

    def __init__(self, lifecycle: Lifecycle, budget: Budget, metrics: Metrics) -> None:
        self._lifecycle = lifecycle
        self._budget = budget
        self._metrics = metrics
        self._reader = TargetReader()
        self._cached = CachedResponses()

    async def Target(  # noqa: N802 (gRPC's name)
        self, request: targeting_pb2.TargetRequest, context: Context
    ) -> targeting_pb2.TargetResponse | bytes:
        arrival = Arrival(context.time_remaining(), self._budget)
        with self._lifecycle.call() as backend:
            request_id, query, deadline = self._reader.read(request, arrival)
            recalled = backend.recall(query)
            if recalled is not None:
                answer, age_s = recalled
                encoded = self._cached.encoded(request_id, query, answer, age_s, arrival)
                self._metrics.answered("Target", answer.source, "cached", late=is_late(deadline))
                return encoded
            async with within(deadline, ServiceClass.TARGETING, self._metrics):
                answer = await backend.target(replace(query, deadline=deadline))
            response = target_response(request_id, answer, arrival)
            self._metrics.answered("Target", answer.source, kind_of_answer(answer), late=is_late(deadline))
            return response
