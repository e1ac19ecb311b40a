"""The Creative service."""

from contextlib import aclosing

from bidtrie.requests import GenerateAnswer, Source
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.server.answer_kind import kind_of_answer
from bidtrie.server.context import Context
from bidtrie.server.creative_messages import delta_update, generate_query, generate_response
from bidtrie.server.deadline import Arrival, Budget, is_late, within
from bidtrie.server.lifecycle import Lifecycle
from bidtrie.server.metrics import Metrics
from bidtrie.v1 import creative_pb2, creative_pb2_grpc


class Creative(creative_pb2_grpc.CreativeServicer):
    """What should the ad say?"""

    def __init__(self, lifecycle: Lifecycle, budget: Budget, metrics: Metrics) -> None:
        self._lifecycle = lifecycle
        self._budget = budget
        self._metrics = metrics

    async def Generate(  # noqa: N802 (gRPC's name)
        self, request: creative_pb2.GenerateRequest, context: Context
    ) -> creative_pb2.GenerateResponse:
        return await self._generate(request, context, stream=False)

    async def GenerateStream(  # noqa: N802 (gRPC's name)
        self, request: creative_pb2.GenerateRequest, context: Context
    ) -> None:
        response = await self._generate(request, context, stream=True)
        await context.write(creative_pb2.GenerateUpdate(response=response))

    async def _generate(
        self, request: creative_pb2.GenerateRequest, context: Context, *, stream: bool
    ) -> creative_pb2.GenerateResponse:
        arrival = Arrival(context.time_remaining(), self._budget)
        answer: GenerateAnswer | None = None
        with self._lifecycle.call() as backend:
            query = generate_query(request, arrival)
            wanted = ServiceClass.PREGENERATION if query.pregeneration else ServiceClass.CREATIVE
            async with (
                within(query.deadline, wanted, self._metrics),
                aclosing(backend.generate(query)) as pieces,
            ):
                async for piece in pieces:
                    if isinstance(piece, GenerateAnswer):
                        answer = piece
                    elif stream:
                        await context.write(delta_update(piece))
        if answer is None:
            raise RuntimeError("the backend ended without an answer")
        response = generate_response(request.request_id, answer, arrival)
        self._metrics.answered("Generate", Source.LLM, kind_of_answer(answer), late=is_late(query.deadline))
        return response
