"""What a call can fail with: gRPC statuses with their details taken apart."""

from collections.abc import Iterable

import grpc
from google.rpc import error_details_pb2, status_pb2

from bidtrie.errors import BidtrieError, Violation

_DETAILS_KEY = "grpc-status-details-bin"


class RequestFailed(BidtrieError):
    """A call ended with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class InvalidRequest(RequestFailed):
    """INVALID_ARGUMENT: `violations` say which fields are wrong and what was expected."""

    violations: tuple[Violation, ...] = ()


class Overloaded(RequestFailed):
    """RESOURCE_EXHAUSTED: the server sheds load, or the request is larger than it takes.

    `retry_after_s` is when to try again; None: trying again does not help.
    """

    retry_after_s: float | None = None


class DeadlineExceeded(RequestFailed):
    """DEADLINE_EXCEEDED: no answer in time."""


class Unavailable(RequestFailed):
    """UNAVAILABLE: nobody listens there, or the server is loading or draining."""


_BY_CODE: dict[grpc.StatusCode, type[RequestFailed]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


def request_failed(
    code: grpc.StatusCode, message: str | None, trailers: Iterable[tuple[str, str | bytes]] | None
) -> RequestFailed:
    """The error for a status and its trailing metadata."""
    error = _BY_CODE.get(code, RequestFailed)(code, message or "")
    for key, value in trailers or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            _add_details(error, value)
    return error


def _add_details(error: RequestFailed, encoded: bytes) -> None:
    for detail in status_pb2.Status.FromString(encoded).details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if isinstance(error, InvalidRequest) and detail.Unpack(bad):
            error.violations = tuple(Violation(each.field, each.description) for each in bad.field_violations)
        elif isinstance(error, Overloaded) and detail.Unpack(retry):
            error.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
