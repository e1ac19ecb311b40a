"""The store that replicas share: Redis, which may be slow or gone without any request noticing but by a miss."""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bidtrie.cache.observer import CacheObserver
from bidtrie.cache.patience import settled
from bidtrie.cache.redis_address import RedisAddress
from bidtrie.errors import InvalidInput

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

logger = logging.getLogger(__name__)

R = TypeVar("R", int, bytes)

#: The format of what is stored: a change of it must change the prefix.
KEY_PREFIX = "bidtrie:1:"

_CONNECT_S = 1.0
#: An answer this many times later than `timeout_s` is no longer waited for; the connection is given up.
_PATIENCE = 10
#: So many late answers in a row, and Redis is left alone for a while.
_LATE_IN_A_ROW = 3
_FIRST_BACK_OFF_S = 0.05
_LAST_BACK_OFF_S = 5.0
#: An idle connection is tried so often, so that a dead one is found before a request needs it.
_IDLE_S = 15.0
_MAX_WAITING = 1024
_READS_A_BATCH = 64
_WRITES_A_BATCH = 16


@dataclass(slots=True, eq=False)
class _Read:
    key: str
    future: "asyncio.Future[tuple[bytes, float] | None]"


@dataclass(slots=True, eq=False)
class _Write:
    key: str
    value: bytes
    since: float


class _TooSlow(Exception):
    """Redis answers too late to be of use."""


class RedisStore:
    """Bytes by key, in one Redis server, for `lifetime_s` seconds; used on one event loop.

    One task owns the connection: it connects, sends what waits as one pipeline, and reconnects. Requests hand it their
    reads and wait at most `timeout_s`; nobody waits for a write. While there is no connection, while an answer is
    overdue and during the back-off after failures, a get is a miss at once. The back-off doubles up to 5 s; behind it
    a new connection has to answer a PING in time before requests use it.

    What Redis holds is not trusted: values are bounded in size by the command that fetches them, and an entry without
    an expiry, or with a longer one than this store gives, is a miss. A reply's own length is bounded only by what can
    arrive until the connection is given up, ten times `timeout_s`.
    """

    def __init__(
        self,
        url: str,
        *,
        lifetime_s: float,
        timeout_s: float = 0.001,
        max_value_bytes: int = 1 << 16,
        max_waiting_writes: int = 256,
        observer: CacheObserver | None = None,
    ) -> None:
        """Connects to nothing yet. Raises InvalidInput for a wrong URL, or where the redis library is missing.

        The loop's timers go off up to 1 ms late: with the default a request loses about 2 ms at most.
        """
        if not lifetime_s >= 0.001:
            raise InvalidInput.of("lifetime_s", f"expected at least a millisecond, got {lifetime_s}")
        if not timeout_s > 0:
            raise InvalidInput.of("timeout_s", f"expected more than 0, got {timeout_s}")
        self._address = RedisAddress.parse(url)
        self._lifetime_ms = round(lifetime_s * 1000)
        # The lifetime is part of the key, since an age is told by what is left of it: replicas whose settings
        # differ, as while a new one is rolled out, must not read each other's entries.
        self._prefix = f"{KEY_PREFIX}{self._lifetime_ms}:"
        self._timeout_s = timeout_s
        self._max_value_bytes = max_value_bytes
        self._max_waiting_writes = max_waiting_writes
        self._observer = observer or CacheObserver()
        self._reads: deque[_Read] = deque()
        self._writes: deque[_Write] = deque()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._connected = False
        self._overdue = False
        self._failures = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisStore({self._address.label!r})"

    @property
    def available(self) -> bool:
        """Whether a get would ask Redis now."""
        return self._connected and not self._overdue

    def start(self) -> None:
        """Begin to connect, in the background; the first get or put does so too."""
        if self._worker is None and not self._closed:
            self._worker = asyncio.create_task(self._work(), name="bidtrie-redis")

    async def get(self, key: str) -> tuple[bytes, float] | None:
        """The value and its age in seconds; None after at most about `timeout_s`."""
        self.start()
        if not self.available:
            self._observer.remote_error("breaker")
            return None
        if len(self._reads) >= _MAX_WAITING:
            self._observer.remote_error("dropped")
            return None
        since = time.perf_counter()
        read = _Read(self._prefix + key, asyncio.get_running_loop().create_future())
        self._reads.append(read)
        self._wake.set()
        try:
            if not await settled(read.future, self._timeout_s):
                self._observer.remote_error("timeout")
                return None
            answer = read.future.result()
        finally:
            read.future.cancel()
        self._observer.remote_seconds("get", time.perf_counter() - since)
        return answer

    def put(self, key: str, value: bytes) -> None:
        """Write in the background; dropped while there is no connection, or too much waits. No value is empty."""
        self.start()
        if not self._connected:
            self._observer.remote_error("breaker")
        elif len(self._writes) >= self._max_waiting_writes or not 0 < len(value) <= self._max_value_bytes:
            self._observer.remote_error("dropped")
        else:
            self._writes.append(_Write(self._prefix + key, value, time.perf_counter()))
            self._wake.set()

    async def close(self) -> None:
        """Disconnect; what was not written yet is lost. Gets are misses from now on."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait((self._worker,))

    async def _work(self) -> None:
        while True:
            connection = self._address.connection()
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await connection.connect()  # type: ignore[no-untyped-call]
                await self._serve(connection)
            except _TooSlow:
                self._failed("too slow")
            except Exception as error:
                # Whatever a peer can provoke ends here. Its own words are not logged: an error of a server may quote
                # the command that it did not like, and that one may have held the password.
                self._observer.remote_error("connection")
                self._failed(type(error).__name__)
            finally:
                self._connected = False
                self._release_waiting()
                await connection.disconnect(nowait=True)
            back_off_s = min(_LAST_BACK_OFF_S, _FIRST_BACK_OFF_S * 2 ** min(self._failures - 1, 16))
            # Replicas that lost the same Redis must not all come back at the same moment.
            await asyncio.sleep(back_off_s * random.uniform(0.5, 1))

    async def _serve(self, connection: "AbstractConnection") -> None:
        """Until the connection fails or Redis is late too often, which raises."""
        if not await self._in_time(connection, [], []):
            raise _TooSlow
        logger.info("the shared cache answers", extra={"url": self._address.label})
        self._connected = True
        late = 0
        while True:
            if not self._reads and not self._writes:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_S):
                        await self._wake.wait()
            reads, writes = self._take()
            if await self._in_time(connection, reads, writes):
                late = self._failures = 0
            else:
                late += 1
                if late == _LATE_IN_A_ROW:
                    raise _TooSlow

    async def _in_time(
        self, connection: "AbstractConnection", reads: list[_Read], writes: list[_Write]
    ) -> bool:
        """Whether a pipeline, or a get in it, was answered in time. Raises _TooSlow when all patience is at an end."""
        exchange = asyncio.create_task(self._exchange(connection, reads, writes))
        try:
            in_time = await settled(exchange, self._timeout_s)
            if not in_time:
                self._overdue = True
                if not await settled(exchange, self._timeout_s * _PATIENCE):
                    raise _TooSlow
            # One large pipeline may take long although Redis is quick: its first answers were of use.
            return exchange.result() or in_time
        finally:
            self._overdue = False
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait((exchange,))
            for read in reads:
                _resolve(read, None)

    async def _exchange(
        self, connection: "AbstractConnection", reads: list[_Read], writes: list[_Write]
    ) -> bool:
        """Send one pipeline and hand out the answers; whether any get was still waited for."""
        commands: list[tuple[str | int | bytes, ...]] = []
        for read in reads:
            # The remaining life first: should the entry be replaced in between, the new value looks older than it is.
            commands += ("PTTL", read.key), ("GETRANGE", read.key, 0, self._max_value_bytes)
        commands += (("SET", write.key, write.value, "PX", self._lifetime_ms) for write in writes)
        packed = connection.pack_commands(commands or [("PING",)])
        await connection.send_packed_command(packed, check_health=False)
        if not commands:
            await _reply(connection, bytes)
        awaited = False
        for read in reads:
            left_ms, left_refused = await _reply(connection, int)
            value, value_refused = await _reply(connection, bytes)
            awaited |= not read.future.done()
            _resolve(read, None if left_refused or value_refused else self._checked(left_ms, value))
            if left_refused or value_refused:
                self._observer.remote_error("refused")
        for write in writes:
            _, refused = await _reply(connection, bytes)
            if refused:
                self._observer.remote_error("refused")
            else:
                self._observer.remote_seconds("put", time.perf_counter() - write.since)
        return awaited

    def _checked(self, left_ms: int, value: bytes) -> tuple[bytes, float] | None:
        # -2: there is no such key. It may also have gone between the two commands, which leaves no bytes.
        if left_ms == -2 or not value:
            return None
        if not 0 <= left_ms <= self._lifetime_ms or len(value) > self._max_value_bytes:
            self._observer.remote_error("decode")
            return None
        return value, (self._lifetime_ms - left_ms) / 1000

    def _take(self) -> tuple[list[_Read], list[_Write]]:
        """What goes into the next pipeline; reads that nobody waits for any more are left out."""
        reads: list[_Read] = []
        while self._reads and len(reads) < _READS_A_BATCH:
            read = self._reads.popleft()
            if not read.future.done():
                reads.append(read)
        writes = [self._writes.popleft() for _ in range(min(len(self._writes), _WRITES_A_BATCH))]
        return reads, writes

    def _failed(self, why: str) -> None:
        level = logging.WARNING if self._connected or not self._failures else logging.DEBUG
        logger.log(
            level, "the shared cache is out of reach", extra={"url": self._address.label, "reason": why}
        )
        self._failures += 1

    def _release_waiting(self) -> None:
        """What waits for a connection that is lost will not be asked for."""
        for _ in self._writes:
            self._observer.remote_error("breaker")
        self._writes.clear()
        while self._reads:
            _resolve(self._reads.popleft(), None)


def _resolve(read: _Read, answer: tuple[bytes, float] | None) -> None:
    if not read.future.done():
        read.future.set_result(answer)


async def _reply(connection: "AbstractConnection", kind: type[R]) -> tuple[R, bool]:
    """A reply of the kind that the command has, or True where Redis refused it. Raises what ends the connection."""
    from redis.exceptions import ResponseError

    try:
        reply: Any = await connection.read_response(disable_decoding=True)
    except ResponseError:
        return kind(), True
    if not isinstance(reply, kind):
        raise ConnectionError("a reply of another type")
    return reply, False
