"""gRPC method handlers of all four kinds as one shape, so that an interceptor is written once."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from bidtrie.server.context import Context

#: Takes the request (or the iterator of requests); returns the response, or writes the responses and returns None.
Behaviour = Callable[[Any, Context], Awaitable[Any]]


def behaviour_of(handler: grpc.RpcMethodHandler) -> Behaviour:
    """What a handler does, whichever way it is written."""
    if not handler.response_streaming:
        unary: Behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return unary
    method = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def write_all(request: Any, context: Context) -> None:
        result = method(request, context)
        if not inspect.isasyncgen(result):
            await result
            return
        async with aclosing(result) as responses:
            async for response in responses:
                await context.write(response)

    return write_all


def with_behaviour(
    handler: grpc.RpcMethodHandler, behaviour: Behaviour, *, raw_requests: bool = False
) -> grpc.RpcMethodHandler:
    """The handler with another behaviour, which may return bytes, and with `raw_requests` is given bytes."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    deserializer = None if raw_requests else handler.request_deserializer
    serialize = handler.response_serializer

    def serializer(response: Any) -> bytes:
        return response if isinstance(response, bytes) else serialize(response)

    return make(behaviour, deserializer, serializer)


def kind_of(handler: grpc.RpcMethodHandler) -> str:
    """The `grpc_type` label of a handler."""
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[handler.request_streaming, handler.response_streaming]
