"""What the runtime tells whoever measures it."""

from bidtrie.cache.observer import CacheObserver
from bidtrie.scheduling.observer import Observer
from bidtrie.serving.cache_observer import CacheRequests


class RuntimeObserver(Observer, CacheObserver, CacheRequests):
    """This one does not listen."""

    def cost_model_saved(self, done: bool) -> None:
        """A cost model was written to its file, or could not be. On a thread of its own."""
