"""Settings of the clients' channels."""

import math

from bidtrie.errors import InvalidInput

DEFAULT_ADDRESS = "localhost:50051"
TARGET_TIMEOUT_MS = 1_000
GENERATE_TIMEOUT_MS = 30_000

CHANNEL_OPTIONS = (
    # A bid server notices a dead connection between two requests, not by the time-outs of the next ones.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retrying is the caller's decision: a bid has a deadline.
    ("grpc.enable_retries", 0),
)


def deadline_s(timeout_ms: float) -> float:
    """A call's deadline in seconds. Raises InvalidInput unless it is over 0."""
    if not (math.isfinite(timeout_ms) and timeout_ms > 0):
        raise InvalidInput.of("timeout_ms", f"{timeout_ms:g}, expected more than 0")
    return timeout_ms / 1e3
