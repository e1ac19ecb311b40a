"""What the runtime tells whoever measures it."""

from bidtrie.cache.observer import CacheObserver
from bidtrie.drafts.drafter import DraftCounts
from bidtrie.scheduling.observer import Observer
from bidtrie.trie.found import SearchWork


class RuntimeObserver(Observer, CacheObserver):
    """This one does not listen."""

    def request(self, result: str) -> None:
        """A request that may be answered from the cache: hit, stale, miss, or joined to an equal one's computation."""

    def searched(self, steps: int, work: SearchWork) -> None:
        """A catalog was searched, in so many engine steps."""

    def cost_model_saved(self, done: bool) -> None:
        """A cost model was written to its file, or could not be. On a thread of its own."""

    def approved_read(self, texts: int | None) -> None:
        """The file of approved creatives was read and holds so many texts; None: it was wrong. On any thread."""

    def creatives_written(self, steps: int, drafts: DraftCounts) -> None:
        """A creative request was computed, in so many engine steps."""
