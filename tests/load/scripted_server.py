"""A server on the test's own loop whose answers a test scripts, request by request."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
from bidtrie.v1 import common_pb2, targeting_pb2

OK = targeting_pb2.TargetResponse(source=common_pb2.SOURCE_LLM, plan="full").SerializeToString()
Script = Callable[[int, grpc.aio.ServicerContext], Awaitable[bytes]]


async def answer_ok(number: int, context: grpc.aio.ServicerContext) -> bytes:
    return OK


class ScriptedServer:
    """Calls `script` with the number of each request, in order of arrival, for its answer's bytes."""

    def __init__(self) -> None:
        self.script: Script = answer_ok
        self.requests: list[bytes] = []
        self.peers: set[str] = set()
        self._server = grpc.aio.server()
        for service, method in (("Targeting", "Target"), ("Creative", "Generate")):
            handlers = {method: grpc.unary_unary_rpc_method_handler(self._answer)}
            generic = grpc.method_handlers_generic_handler(f"bidtrie.v1.{service}", handlers)
            self._server.add_generic_rpc_handlers((generic,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        number = len(self.requests)
        self.requests.append(request)
        self.peers.add(context.peer())
        return await self.script(number, context)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> Any:
        await self._server.stop(None)
