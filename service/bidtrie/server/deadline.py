"""When an answer must be out: fixed on arrival, on the monotonic clock."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bidtrie.errors import DeadlineExceeded


class Arrival:
    """The moment at which a request reached its handler.

    `grpc_seconds_left` is what its gRPC deadline leaves; None: it has no deadline.
    """

    def __init__(self, grpc_seconds_left: float | None) -> None:
        self.at = time.monotonic()
        self._grpc = None if grpc_seconds_left is None else self.at + grpc_seconds_left

    def deadline(self, tmax_ms: int | None) -> float | None:
        """The earlier of the gRPC deadline and `tmax_ms` from arrival; None: neither is set."""
        asked = None if tmax_ms is None else self.at + tmax_ms / 1e3
        if self._grpc is None or asked is None:
            return asked if self._grpc is None else self._grpc
        return min(self._grpc, asked)

    def elapsed_ms(self) -> float:
        """Milliseconds since arrival."""
        return (time.monotonic() - self.at) * 1e3


@asynccontextmanager
async def within(deadline: float | None) -> AsyncIterator[None]:
    """Cancel the block when the deadline passes, and raise DeadlineExceeded: an answer after it is worth nothing.

    The block must not yield to another task's code (no `yield` of a generator in it): a cancellation would go astray.
    """
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise DeadlineExceeded("the deadline had passed on arrival")
    timeout = asyncio.timeout(left)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        raise DeadlineExceeded("the deadline passed before the answer was ready") from None
