"""A first idea of step times: chains of several lengths, run before the engine serves."""

import statistics
import time
from collections.abc import Callable

from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.scheduling.scheduler import Level
from bidtrie.scheduling.step_shape import shape_of

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_REPEATS = 3
#: No size is tried that would take longer than this.
_LONGEST_S = 0.1


def calibrate(level: Level, prefix: int, token: int, clock: Callable[[], float] = time.perf_counter) -> None:
    """Time steps after the sequence `prefix`, which is left as it was; `token` is any token's id."""
    engine = level.engine
    sequence = engine.open(share=prefix)
    try:
        engine.step(
            TreeBatch.chain([token], sequence, last_logits=True)
        )  # wakes threads, touches the weights
        for size in SIZES:
            if size > min(engine.spec.max_nodes, engine.free_slots()):
                break
            for full in (False, True) if size == 1 else (False,):
                batch = TreeBatch.chain([token] * size, sequence, last_logits=full)
                times = []
                for _ in range(_REPEATS):
                    begin = clock()
                    engine.step(batch)
                    times.append(clock() - begin)
                seconds = statistics.median(times)
                level.model.learn(shape_of(batch, engine.length), seconds, calibration=True)
            if seconds > _LONGEST_S / 2:
                break
    finally:
        engine.close(sequence)
