"""Reading the status of a failed call."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    """The google.rpc details of a status, unpacked."""
    unpacked: list[Any] = []
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            for detail in status.details:
                for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
                    message = kind()
                    if detail.Unpack(message):
                        unpacked.append(message)
    return unpacked


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Field -> description of an INVALID_ARGUMENT."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    (bad,) = details(error)
    return {each.field: each.description for each in bad.field_violations}
