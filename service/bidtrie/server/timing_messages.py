"""Timings as the protos have them."""

from bidtrie.requests import Timings
from bidtrie.server.deadline import Arrival
from bidtrie.v1 import common_pb2


def timings_message(timings: Timings, arrival: Arrival) -> common_pb2.Timings:
    """The message, its total time taken now."""
    return common_pb2.Timings(
        total_ms=arrival.elapsed_ms(),
        queue_ms=timings.queue_ms,
        engine_ms=timings.engine_ms,
        steps=timings.steps,
        nodes=timings.nodes,
        prompt_tokens=timings.prompt_tokens,
        cached_tokens=timings.cached_tokens,
    )


def milliseconds(seconds: float | None) -> int | None:
    """Whole milliseconds; None stays unset."""
    return None if seconds is None else round(1000 * seconds)
