"""Waiting for a bounded time."""

import asyncio
from typing import Any

#: Passes of the event loop between a byte's arrival and the end of the task that waits for it, counted generously.
_PASSES = 4


async def settled(future: "asyncio.Future[Any]", timeout_s: float) -> bool:
    """Whether a future is done within `timeout_s` seconds; it is neither cancelled nor asked for its result.

    When the loop itself was held up for longer than that, the timer and what was waited for are due at once. The few
    passes after the timer let what has arrived by then be read, lest the peer is blamed for the loop's delay.
    """
    if not future.done():
        await asyncio.wait((future,), timeout=timeout_s)
        for _ in range(_PASSES):
            if future.done():
                break
            await asyncio.sleep(0)
    return future.done()
