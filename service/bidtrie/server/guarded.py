"""Turns what handlers raise into statuses, and parses requests itself so that junk is the client's error.

gRPC's own handling would answer a request that does not parse, and any exception, with INTERNAL or UNKNOWN.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from bidtrie.errors import BidtrieError, InvalidInput, Overloaded
from bidtrie.server.context import Context
from bidtrie.server.handlers import behaviour_of, with_behaviour
from bidtrie.server.status import internal, status_of

logger = logging.getLogger(__name__)


def guarded(
    handler: grpc.RpcMethodHandler, method: str, refused: Callable[[float], None]
) -> grpc.RpcMethodHandler:
    """The handler, whose errors become statuses: innermost of the wrappers.

    `refused` gets the seconds from a call's arrival until RESOURCE_EXHAUSTED is handed to gRPC.
    """
    inner, parse, many = behaviour_of(handler), handler.request_deserializer, handler.request_streaming

    async def behaviour(raw: Any, context: Context) -> Any:
        begin = time.monotonic()
        try:
            return await inner(_parsed_all(parse, raw) if many else _parsed(parse, raw), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except BidtrieError as error:
            status = status_of(error)
            if status is None:
                logger.exception("call failed", extra={"method": method})
                status = internal()
            if isinstance(error, Overloaded):
                refused(time.monotonic() - begin)
        except Exception:
            logger.exception("call failed", extra={"method": method})
            status = internal()
        try:
            return await context.abort_with_status(status)
        except grpc.aio.AbortError:
            raise
        except Exception:
            # The core cannot send to a client that has gone meanwhile: that is a cancelled call, no fault.
            raise asyncio.CancelledError from None

    return with_behaviour(handler, behaviour, raw_requests=True)


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except DecodeError:
        raise InvalidInput.of(
            "", "the request is not a message of this method: cut off, corrupt, or a string that is not UTF-8"
        ) from None


async def _parsed_all(parse: Callable[[bytes], Any], raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for each in raw:
        yield _parsed(parse, each)
