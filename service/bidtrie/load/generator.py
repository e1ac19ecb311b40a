"""Sends each request at its time and notes what became of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from bidtrie.load.arrivals import Plan
from bidtrie.load.options import Call, LoadOptions
from bidtrie.load.records import DROPPED, NOT_SENT, UNFINISHED, Answer, Records
from bidtrie.load.timer import Timer
from bidtrie.v1 import common_pb2, creative_pb2, targeting_pb2

METHODS = {
    Call.TARGET: "/bidtrie.v1.Targeting/Target",
    Call.GENERATE: "/bidtrie.v1.Creative/Generate",
}
# Requests sent in one go before answers get their turn.
_BURST = 32
_MOST_ERROR_TEXTS = 100
_OTHER_ERRORS = "(other messages)"
# Over the gRPC deadline, after which a call that has not ended will not end.
_GRACE_SECONDS = 5.0


class Generator:
    """One run over open channels; make and use it on one event loop.

    Calls take and return bytes; a response is parsed after its time was taken, in about a microsecond.
    """

    def __init__(
        self, options: LoadOptions, plan: Plan, bodies: Iterator[bytes], channels: Sequence[grpc.aio.Channel]
    ) -> None:
        self._methods = [channel.unary_unary(METHODS[options.call]) for channel in channels]
        self._bodies = bodies
        self._timeout_s = options.timeout_s
        self._max_in_flight = options.max_in_flight
        self._is_target = options.call is Call.TARGET
        count = len(plan.times)
        self._plan = plan
        # Plain lists: reading and writing single numbers of an array takes several times as long.
        self._intended: list[float] = plan.times.tolist()
        self._sent = [float("nan")] * count
        self._done = [float("nan")] * count
        self._status = [NOT_SENT] * count
        self._answer = [-1] * count
        self._answers: dict[Answer, int] = {}
        self._errors: Counter[tuple[int, str]] = Counter()
        self._next = 0
        self._answered = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._start = 0.0
        self._timer: Timer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all_sent = asyncio.Event()
        self.interrupted = False

    @property
    def sent(self) -> int:
        """Requests whose time has come, the warm-up's included."""
        return self._next

    @property
    def answered(self) -> int:
        """Requests that have ended, the warm-up's included."""
        return self._answered

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of what is counted; below 0 during the warm-up."""
        return time.monotonic() - self._start

    async def run(self) -> None:
        """Send everything and wait for the answers; ends early after `stop`."""
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(self._loop, self._send_due)
        # A moment to get going, so that the first requests are not late.
        self._start = time.monotonic() + 0.02 - min(0.0, self._intended[0])
        try:
            self._send_due()
            await self._all_sent.wait()
            if self._tasks and not self.interrupted:
                await asyncio.wait(self._tasks, timeout=self._timeout_s + _GRACE_SECONDS)
        finally:
            self._timer.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Send nothing more and give up what is in flight."""
        self.interrupted = True
        self._all_sent.set()
        for task in self._tasks:
            task.cancel()

    def records(self) -> Records:
        """What became of the requests, the warm-up's left out."""
        first = self._plan.warm_up
        return Records(
            intended=self._plan.times[first:],
            sent=np.array(self._sent[first:]),
            done=np.array(self._done[first:]),
            status=np.array(self._status[first:], dtype=np.int8),
            answer=np.array(self._answer[first:], dtype=np.int16),
            answers=tuple(self._answers),
            errors=dict(self._errors),
        )

    def _send_due(self) -> None:
        """Send what is due, then set the timer for what comes next."""
        assert self._timer is not None
        assert self._loop is not None
        for _ in range(_BURST):
            if self.interrupted:
                return
            if self._next == len(self._intended):
                self._all_sent.set()
                return
            at = self._start + self._intended[self._next]
            if at > time.monotonic():
                self._timer.set(at)
                return
            self._send(self._next)
            self._next += 1
        self._loop.call_soon(self._send_due)

    def _send(self, index: int) -> None:
        assert self._loop is not None
        body = next(self._bodies)
        if len(self._tasks) >= self._max_in_flight:
            self._status[index] = DROPPED
            return
        self._status[index] = UNFINISHED
        task = self._loop.create_task(self._call(index, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, index: int, body: bytes) -> None:
        method = self._methods[index % len(self._methods)]
        self._sent[index] = time.monotonic() - self._start
        try:
            response = await method(body, timeout=self._timeout_s)
        except asyncio.CancelledError:
            # The run was stopped: there is nobody to pass this on to.
            return
        except grpc.aio.AioRpcError as error:
            self._ended(index, error.code().value[0], error.details())
            return
        self._ended(index, 0)
        try:
            kind = self._kind(response)
        except DecodeError:
            self._ended(index, grpc.StatusCode.UNKNOWN.value[0], "the answer cannot be parsed")
        else:
            self._answer[index] = self._answers.setdefault(kind, len(self._answers))

    def _ended(self, index: int, code: int, message: str | None = None) -> None:
        self._done[index] = time.monotonic() - self._start
        self._status[index] = code
        self._answered += 1
        if code and index >= self._plan.warm_up:
            error = (code, message or "")
            if error not in self._errors and len(self._errors) >= _MOST_ERROR_TEXTS:
                error = (code, _OTHER_ERRORS)
            self._errors[error] += 1

    def _kind(self, response: bytes) -> Answer:
        if self._is_target:
            answer = targeting_pb2.TargetResponse.FromString(response)
            source = common_pb2.Source.Name(answer.source)
            return Answer(
                source, answer.partial, answer.fallback, answer.HasField("cache_age_ms"), answer.plan
            )
        texts = creative_pb2.GenerateResponse.FromString(response)
        return Answer("", texts.partial, texts.fallback, texts.HasField("cache_age_ms"), "")
