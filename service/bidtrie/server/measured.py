"""Counts and times every gRPC call under the names that the gRPC ecosystem's dashboards expect."""

import asyncio
import time
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


def measured(
    handler: grpc.RpcMethodHandler, service: str, method: str, metrics: Metrics
) -> grpc.RpcMethodHandler:
    """The handler, counted and timed: outermost of the wrappers, since it sees the final status."""
    inner = behaviour_of(handler)
    series = metrics.method_series(kind_of(handler), service, method)

    async def behaviour(request: Any, context: Context) -> Any:
        begin = time.monotonic()
        series.started()
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
            series.ended(code, time.monotonic() - begin)
        return response

    return with_behaviour(handler, behaviour)


def _name(code: grpc.StatusCode | int | None) -> str:
    """A code as the `grpc_code` label has it, for example "InvalidArgument"."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    return _CODE_NAMES.get(number, "Unknown")
