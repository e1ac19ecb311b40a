"""What the cache tells whoever measures it."""


class CacheObserver:
    """This one does not listen. Called on the event loop; `cache` is the name that an AnswerCache was given."""

    def cache_size(self, cache: str, entries: int, size_bytes: int) -> None:
        """What memory holds, after it changed; bytes as MemoryStore counts them."""

    def cache_evicted(self, cache: str) -> None:
        """An entry whose time had not come made room for a newer one."""

    def remote_seconds(self, operation: str, seconds: float) -> None:
        """Redis answered a "get" or a "put", so many seconds after it was asked for."""

    def remote_error(self, reason: str) -> None:
        """Redis was of no use:

        timeout     a get was not answered in time
        connection  a connection could not be made, or broke
        breaker     a get or put was skipped, since Redis is out of reach or slow now
        refused     Redis answered with an error
        decode      what Redis held is no value
        dropped     too many operations are waiting, or the value is too large
        """

    def fill(self, outcome: str) -> None:
        """A background filling is "done", "failed", or was "dropped" because too many are waiting."""
