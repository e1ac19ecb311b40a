"""The timer, on timers of Linux and on the loop's own."""

import asyncio
import ctypes
import time

import pytest
from bidtrie.load.timer import Timer

HANG_S = 30.0


class _NoTimers:
    """A C library of a system without timerfd."""

    def timerfd_create(self, clock: int, flags: int) -> int:
        return -1


@pytest.fixture(params=["linux", "loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _NoTimers())
    return str(request.param)


class Woken:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.event = asyncio.Event()
        self.timer = Timer(asyncio.get_running_loop(), self)

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        self.event.set()

    async def wait(self) -> float:
        await asyncio.wait_for(self.event.wait(), HANG_S)
        self.event.clear()
        return self.times[-1]


async def test_it_wakes_once_and_not_early(kind: str) -> None:
    woken = Woken()
    at = time.monotonic() + 0.03
    woken.timer.set(at)
    # The loop rounds to milliseconds, down as well; whoever uses the timer looks at the clock.
    assert await woken.wait() >= at - (0 if kind == "linux" else 0.002)
    await asyncio.sleep(0.05)
    assert len(woken.times) == 1
    woken.timer.close()


async def test_the_last_time_counts(kind: str) -> None:
    woken = Woken()
    woken.timer.set(time.monotonic() + HANG_S)
    woken.timer.set(time.monotonic() + 0.01)
    await woken.wait()
    woken.timer.set(0.0)  # long past: at once
    await woken.wait()
    assert len(woken.times) == 2
    woken.timer.close()


async def test_a_closed_timer_is_silent(kind: str) -> None:
    woken = Woken()
    woken.timer.set(time.monotonic() + 0.01)
    woken.timer.close()
    woken.timer.close()
    await asyncio.sleep(0.05)
    assert woken.times == []
