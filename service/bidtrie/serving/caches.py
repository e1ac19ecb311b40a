"""The answer caches of a process: they outlive the model, whose hash is part of every key."""

import asyncio

from bidtrie.cache.answer_cache import AnswerCache
from bidtrie.cache.fill_queue import FillQueue
from bidtrie.cache.redis_store import RedisStore
from bidtrie.requests import GenerateAnswer, TargetAnswer
from bidtrie.serving.answer_codec import GENERATE_CODEC, TARGET_CODEC
from bidtrie.serving.answers import Answers
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.settings import Settings


class Caches:
    """One for targeting, one for creatives; a filler for both."""

    def __init__(self, settings: Settings, observer: RuntimeObserver) -> None:
        """Raises InvalidInput naming `cache_redis_url`."""
        fresh_s, stale_s = settings.cache_fresh_seconds, settings.cache_stale_seconds
        url = settings.cache_redis_url
        remote = None if url is None else RedisStore(url, lifetime_s=fresh_s + stale_s, observer=observer)
        self._fills = FillQueue(settings.cache_fills, observer)
        targeting: AnswerCache[TargetAnswer] = AnswerCache(
            "targeting",
            TARGET_CODEC,
            max_bytes=settings.cache_bytes,
            fresh_s=fresh_s,
            stale_s=stale_s,
            remote=remote,
            observer=observer,
        )
        creatives: AnswerCache[GenerateAnswer] = AnswerCache(
            "creative",
            GENERATE_CODEC,
            max_bytes=settings.creative_cache_bytes,
            fresh_s=fresh_s,
            stale_s=stale_s,
            remote=remote,
            observer=observer,
        )
        self._caches = (targeting, creatives)
        self.targeting = Answers(targeting, self._fills, observer)
        self.creatives = Answers(creatives, self._fills, observer)

    async def close(self) -> None:
        """End what fills the caches, and close the connections."""
        await self._fills.close()
        await asyncio.gather(*(cache.close() for cache in self._caches))
