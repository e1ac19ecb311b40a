"""The thread that runs the scheduler's rounds, and is the only one that touches the engines."""

import logging
import threading

from bidtrie.errors import EngineError
from bidtrie.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)


class EngineThread:
    """Runs rounds while there is work, and sleeps while there is none."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._wake = threading.Event()
        self._stopping = False
        scheduler.wake = self._wake.set
        self._thread = threading.Thread(target=self._loop, name="bidtrie-engine", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """End every request with NotReady, stop the thread, then the engines."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.set()
        self._thread.join()
        for level in self.scheduler.levels:
            level.engine.shutdown()

    def _loop(self) -> None:
        while not self._stopping:
            # Cleared before the round looks for arrivals, so that none is slept through.
            self._wake.clear()
            try:
                wait = self.scheduler.round()
            except Exception as error:
                # A defect of the scheduler must leave no request without an answer, and must not stop the next one's.
                logger.exception("a round of the scheduler failed")
                self.scheduler.abandon(EngineError(f"the scheduler failed: {error}"))
                wait = 0.0
            if wait != 0.0 and not self._stopping:
                self._wake.wait(wait)
        self.scheduler.stop()
