"""Errors -> gRPC statuses with google.rpc details."""

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from bidtrie.errors import (
    BidtrieError,
    CatalogError,
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    NotReady,
    Overloaded,
    Violation,
)

# Trailers must fit into the 8 KiB of header fields that gRPC implementations take by default; details travel as base64.
_MAX_DETAIL_BYTES = 4_096
_MAX_MESSAGE_CHARACTERS = 400


def status_of(error: BidtrieError) -> grpc.Status | None:
    """The status that tells a client about an error; None: it is not meant for clients."""
    match error:
        case InvalidInput():
            message = "; ".join(
                f"{each.field}: {each.description}".removeprefix(": ") for each in error.violations
            )
            return _status(code_pb2.INVALID_ARGUMENT, message, _bad_request(error.violations))
        case Overloaded():
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(error.retry_after_s * 1e9))
            return _status(
                code_pb2.RESOURCE_EXHAUSTED, str(error), error_details_pb2.RetryInfo(retry_delay=delay)
            )
        case DeadlineExceeded():
            return _status(code_pb2.DEADLINE_EXCEEDED, str(error))
        case NotReady():
            return _status(code_pb2.UNAVAILABLE, str(error))
        case ModelError() | CatalogError():
            return _status(code_pb2.FAILED_PRECONDITION, str(error))
        case _:
            return None


def internal() -> grpc.Status:
    """What a client is told of a defect: nothing but that it is one."""
    return _status(code_pb2.INTERNAL, "internal error")


def _status(code: int, message: str, detail: Message | None = None) -> grpc.Status:
    if len(message) > _MAX_MESSAGE_CHARACTERS:
        message = message[: _MAX_MESSAGE_CHARACTERS - 1] + "…"
    status = status_pb2.Status(code=code, message=message)
    if detail is not None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """As many violations as fit; the last one says how many did not."""
    bad = error_details_pb2.BadRequest()
    for i, violation in enumerate(violations):
        bad.field_violations.add(field=violation.field, description=violation.description)
        if bad.ByteSize() > _MAX_DETAIL_BYTES:
            del bad.field_violations[-1]
            bad.field_violations.add(field="", description=f"and {len(violations) - i:,} more")
            break
    return bad
