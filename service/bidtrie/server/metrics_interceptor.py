"""Counts and times every gRPC call under the names that the gRPC ecosystem's dashboards expect."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bidtrie.server.context import Context
from bidtrie.server.handlers import behaviour_of, kind_of, with_behaviour
from bidtrie.server.metrics import Metrics

_CODE_NAMES = {
    code.value[0]: "".join(part.title() for part in code.name.split("_")) for code in grpc.StatusCode
}
# As Go, whose names the dashboards know, spells them.
_CODE_NAMES |= {0: "OK", 1: "Canceled"}


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Outermost of the interceptors: sees the final status."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method: gRPC answers UNIMPLEMENTED; its name must not become a label
            return None
        service, _, method = handler_call_details.method.strip("/").rpartition("/")
        kind, inner = kind_of(handler), behaviour_of(handler)

        async def measured(request: Any, context: Context) -> Any:
            begin = time.monotonic()
            self._metrics.call_started(kind, service, method)
            code = "Unknown"
            try:
                response = await inner(request, context)
                code = _name(context.code())
            except asyncio.CancelledError:
                # gRPC cancels the handler for both: the client hung up, or its deadline passed.
                late = context.time_remaining() == 0
                code = "DeadlineExceeded" if late else "Canceled"
                raise
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            finally:
                self._metrics.call_ended(kind, service, method, code, time.monotonic() - begin)
            return response

        return with_behaviour(handler, measured)


def _name(code: grpc.StatusCode | int | None) -> str:
    """A code as the `grpc_code` label has it, for example "InvalidArgument"."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    return _CODE_NAMES.get(number, "Unknown")
