"""What the cache in front of the model tells whoever measures it."""


class CacheRequests:
    """This one does not listen. On the event loop."""

    def request(self, result: str) -> None:
        """A request that may be answered from the cache: hit, stale, miss, or joined to an equal one's computation."""
