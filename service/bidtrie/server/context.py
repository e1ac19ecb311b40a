"""What handlers use of gRPC's servicer context (grpcio ships no types)."""

from typing import Any, NoReturn, Protocol

import grpc


class Context(Protocol):
    """The part of `grpc.aio.ServicerContext` that is used here."""

    def time_remaining(self) -> float | None:
        """Seconds until the call's deadline, not below 0; None: it has none."""

    def code(self) -> grpc.StatusCode | int | None:
        """The status that was set."""

    async def write(self, message: Any) -> None:
        """Send one response of a stream."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status; raises."""

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status and its details; raises."""
