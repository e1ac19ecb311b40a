"""Handlers are wrapped once: interceptors would do it anew for every call."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from bidtrie.server.guarded import guarded
from bidtrie.server.measured import measured
from bidtrie.server.metrics import Metrics


class _Wrapped(grpc.GenericRpcHandler):
    """A service whose methods are measured and guarded."""

    def __init__(self, inner: grpc.GenericRpcHandler, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._known: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        path = details.method
        known = self._known.get(path)
        if known is not None:
            return known
        handler = self._inner.service(details)
        if handler is None:  # an unknown method: gRPC answers UNIMPLEMENTED; its name must not become a label
            return None
        service, _, method = path.strip("/").rpartition("/")
        wrapped = measured(guarded(handler, path, self._metrics.refused), service, method, self._metrics)
        self._known[path] = wrapped
        return wrapped


class WrappingServer:
    """What the generated `add_…_to_server` functions need of a server; wraps what they register."""

    def __init__(self, server: grpc.aio.Server, metrics: Metrics) -> None:
        self._server = server
        self._metrics = metrics

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register services."""
        self._server.add_generic_rpc_handlers(tuple(_Wrapped(each, self._metrics) for each in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: the same handlers come the other way too."""
