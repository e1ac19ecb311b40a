"""Where a job's time went, as an answer says it."""

from bidtrie.requests import Timings
from bidtrie.scheduling.job import JobStats


def timings(stats: JobStats, prompt_tokens: int, cached_tokens: int) -> Timings:
    """Seconds to milliseconds, with the prompt's size in tokens."""
    return Timings(
        queue_ms=stats.queue_s * 1000,
        engine_ms=stats.engine_s * 1000,
        steps=stats.steps,
        nodes=stats.nodes,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
    )
