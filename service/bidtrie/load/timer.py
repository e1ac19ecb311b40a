"""A timer that is finer than the event loop's milliseconds."""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """Calls `wake` on the loop at the time that was set last, once.

    Event loops round their waits to milliseconds, which would be half of what a fast answer takes. Linux has timers
    that are read like files; Python's own binding of them comes with 3.13. Elsewhere the loop's timer does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._later: asyncio.TimerHandle | None = None
        self._file = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            loop.add_reader(self._file, self._readable)

    def set(self, at: float) -> None:
        """Wake at this time of `time.monotonic()` (s), at once if it has passed."""
        if self._file >= 0:
            nanoseconds = max(1, int(at * 1e9))
            value = _TimeSpec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
            spec = _TimerSpec(_TimeSpec(0, 0), value)
            if self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None) == 0:
                return
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def close(self) -> None:
        """Wake no more."""
        if self._later is not None:
            self._later.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _readable(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew between the loop's poll and this call
            return
        self._wake()
