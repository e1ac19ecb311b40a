"""A first idea of step times, from steps of several shapes that are run before the engine serves."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from bidtrie.engine.tree_batch import Candidates, TreeBatch
from bidtrie.scheduling.scheduler import Level
from bidtrie.scheduling.step_shape import shape_of

SIZES = (1, 2, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512)
#: Sizes that are timed once more with rows over the whole vocabulary, with rows of so many candidates, and behind so
#: many tokens of context.
_ROWS, _CANDIDATES, _BEHIND, _CONTEXT = (1, 8), 64, (1, 8, 32), 256
_REPEATS = 3
#: No size is tried that would take longer than this.
_LONGEST_S = 0.1


def calibrate(level: Level, prefix: int, token: int, clock: Callable[[], float] = time.perf_counter) -> None:
    """Time steps after the sequence `prefix`, which is left as it was; `token` is any token's id."""
    engine = level.engine
    sequence = engine.open(share=prefix)
    try:
        # Wakes threads, and touches the weights.
        engine.step(TreeBatch.chain([token], sequence, last_logits=True))
        largest = _time_sizes(level, sequence, token, SIZES, clock)
        context = min(_CONTEXT, engine.spec.context_length - engine.length(sequence) - max(_BEHIND))
        if largest < max(_BEHIND) or context <= 0 or engine.free_slots() < context + max(_BEHIND):
            return
        while context > 0:
            output = engine.step(TreeBatch.chain([token] * min(context, largest), sequence))
            engine.commit(sequence, output.nodes.tolist())
            context -= len(output.nodes)
        _time_sizes(level, sequence, token, _BEHIND, clock)
    finally:
        engine.close(sequence)


def _time_sizes(
    level: Level, sequence: int, token: int, sizes: tuple[int, ...], clock: Callable[[], float]
) -> int:
    """Time chains of some sizes; returns the largest that was tried."""
    engine, largest = level.engine, 0
    for size in sizes:
        if size > min(engine.spec.max_nodes, engine.free_slots()):
            break
        some = Candidates.of([np.arange(min(_CANDIDATES, engine.spec.vocab_size), dtype=np.int32)] * size)
        wanted = [(0, None), (size, None), (size, some)] if size in _ROWS else [(0, None)]
        for rows, candidates in wanted:
            parents = range(-1, size - 1)
            batch = TreeBatch.of([token] * size, sequence, list(parents), range(rows), candidates)
            times = []
            for _ in range(_REPEATS):
                begin = clock()
                engine.step(batch)
                times.append(clock() - begin)
            seconds = statistics.median(times)
            # Nothing but the engine is timed: what jobs do between steps is learned from theirs.
            shape = shape_of(batch, engine.length)._replace(jobs=0)
            level.model.learn(shape, seconds, calibration=True)
        largest = size
        if seconds > _LONGEST_S / 2:
            break
    return largest
