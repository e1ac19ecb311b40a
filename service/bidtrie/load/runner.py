"""A whole run: plan, connect, send, report."""

import asyncio
import gc
import secrets
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import numpy as np
import uvloop

from bidtrie.client.channel import CHANNEL_OPTIONS
from bidtrie.errors import BidtrieError
from bidtrie.load.arrivals import make_plan
from bidtrie.load.bodies import make_bodies
from bidtrie.load.generator import Generator
from bidtrie.load.options import LoadOptions
from bidtrie.load.report import LoadReport

_CONNECT_SECONDS = 5.0
_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, the warm-up included."""

    sent: int
    answered: int
    planned: int


def run(options: LoadOptions, *, on_progress: Callable[[Progress], None] | None = None) -> LoadReport:
    """Put the load on the server and report, on an event loop of its own; Ctrl-C ends the run early.

    Raises InvalidInput for wrong options, BidtrieError where no server is reached. `on_progress` is called four times a
    second.
    """

    async def main() -> LoadReport:
        stop = asyncio.Event()
        if threading.current_thread() is not threading.main_thread():
            return await run_async(options, on_progress=on_progress, stop=stop)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop.set)
        try:
            return await run_async(options, on_progress=on_progress, stop=stop)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def run_async(
    options: LoadOptions,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: asyncio.Event | None = None,
) -> LoadReport:
    """The same on the running event loop; setting `stop` ends it early, with a report of what was done so far."""
    options.check()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    for_arrivals, for_bodies = np.random.default_rng(seed).spawn(2)
    plan = make_plan(options, for_arrivals)
    bodies = make_bodies(options, len(plan.times), for_bodies)
    # Channels to one address share a connection unless each has a pool of its own.
    settings = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(options.target, settings) for _ in range(options.connections)]
    try:
        await _connect(options.target, channels)
        generator = Generator(options, plan, bodies, channels)
        date = datetime.now(UTC)
        # Nothing of the plan is garbage, so that no collection during the run needs to look at it.
        gc.collect()
        gc.freeze()
        try:
            await _watched(generator, len(plan.times), on_progress, stop)
        finally:
            gc.unfreeze()
        elapsed_s = max(0.0, generator.elapsed_s)
        window_s = min(plan.window_s, elapsed_s) if generator.interrupted else plan.window_s
        return LoadReport(options, seed, date, generator.interrupted, window_s, generator.records())
    finally:
        for channel in channels:
            await channel.close()


async def _connect(target: str, channels: list[grpc.aio.Channel]) -> None:
    """Wait until every channel is connected. Raises BidtrieError at the first attempt that fails."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            for channel in channels:
                while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise BidtrieError(f"{target}: no server can be reached there")
                    await channel.wait_for_state_change(state)
    except TimeoutError:
        raise BidtrieError(f"{target}: no connection within {_CONNECT_SECONDS:g} s") from None


async def _watched(
    generator: Generator,
    planned: int,
    on_progress: Callable[[Progress], None] | None,
    stop: asyncio.Event | None,
) -> None:
    """Run, tell of the progress, and stop when told to."""
    running = asyncio.ensure_future(generator.run())
    stopping = asyncio.ensure_future((stop or asyncio.Event()).wait())
    try:
        while not running.done():
            await asyncio.wait(
                {running} if generator.interrupted else {running, stopping},
                timeout=_PROGRESS_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if stopping.done() and not generator.interrupted:
                generator.stop()
            if on_progress is not None:
                on_progress(Progress(generator.sent, generator.answered, planned))
        await running
    finally:
        for each in (running, stopping):
            each.cancel()
        await asyncio.wait({running, stopping})
