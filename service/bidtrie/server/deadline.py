"""When an answer must be out: fixed on arrival, on the monotonic clock."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bidtrie.errors import DeadlineExceeded
from bidtrie.scheduling.observer import Observer
from bidtrie.scheduling.service_class import ServiceClass


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of the time that a client gives may be spent. Seconds, but for the share."""

    tmax_share: float = 1.0
    network_margin_s: float = 0.0
    max_s: float = math.inf


#: All the time that there is.
NO_LIMITS = Budget()


class Arrival:
    """The moment at which a request reached its handler.

    `grpc_seconds_left` is what its gRPC deadline leaves; None: it has no deadline.
    """

    def __init__(self, grpc_seconds_left: float | None, budget: Budget = NO_LIMITS) -> None:
        self.at = time.monotonic()
        self._budget = budget
        self._grpc_s = grpc_seconds_left

    def deadline(self, tmax_ms: int | None, *, whole: bool = False) -> float | None:
        """When the answer must be handed to gRPC: the earliest of what is asked for and what the server allows.

        `tmax_ms` counts from arrival; of the auction's only a share may be spent here, all of it with `whole`. None: no
        limit is set anywhere.
        """
        budget = self._budget
        seconds = budget.max_s
        if tmax_ms is not None:
            seconds = min(seconds, tmax_ms / 1e3 * (1.0 if whole else budget.tmax_share))
        if self._grpc_s is not None:
            seconds = min(seconds, self._grpc_s - budget.network_margin_s)
        return None if math.isinf(seconds) else self.at + seconds

    def elapsed_ms(self) -> float:
        """Milliseconds since arrival."""
        return (time.monotonic() - self.at) * 1e3


def is_late(deadline: float | None) -> bool:
    """Whether an answer that is handed to gRPC now is late."""
    return deadline is not None and time.monotonic() > deadline


@asynccontextmanager
async def within(
    deadline: float | None, service_class: ServiceClass, observer: Observer
) -> AsyncIterator[None]:
    """Cancel the block when the deadline passes, and raise DeadlineExceeded: an answer after it is worth nothing.

    `observer` is told of requests that no scheduler saw or whose end it cannot see: late_on_arrival, expired.
    The block must not yield to another task's code (no `yield` of a generator in it): a cancellation would go astray.
    """
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        observer.arrived(service_class, left)
        observer.shed(service_class, "late_on_arrival")
        raise DeadlineExceeded("the deadline left no time on arrival")
    timeout = asyncio.timeout(left)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        observer.shed(service_class, "expired")
        raise DeadlineExceeded("the deadline passed before the answer was ready") from None
