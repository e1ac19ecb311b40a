"""What was written for an advertiser lately: kept in memory, apart from everybody else's, the older the lighter."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bidtrie.drafts.phrase_trie import PhraseTrie, start

#: Texts kept of one advertiser, and after how many newer ones a text weighs half.
MOST_TEXTS, HALF_LIFE = 64, 16
#: Bytes of an advertiser's entry and of a text beside their tokens, and of a token: 4 kept, 16 in the trie.
_ENTRY_BYTES, _TEXT_BYTES, _TOKEN_BYTES = 1024, 160, 20


@dataclass(slots=True)
class _Advertiser:
    texts: deque[NDArray[np.int32]] = field(default_factory=deque)
    """Newest first."""
    trie: PhraseTrie | None = None
    """Of the texts as they are; None: not built."""
    size: int = _ENTRY_BYTES


class RecentOutputs:
    """Recent texts by advertiser, the least recently used one dropped when `max_bytes` are reached.

    One thread at a time. What is kept for one advertiser is never told for another.
    """

    def __init__(self, max_bytes: int, vocabulary: int) -> None:
        self._max_bytes = max_bytes
        self._vocabulary = vocabulary
        self._advertisers: OrderedDict[str, _Advertiser] = OrderedDict()
        self.size = 0
        """Bytes kept, as estimated."""

    def __len__(self) -> int:
        """Advertisers."""
        return len(self._advertisers)

    def add(self, company: str, texts: Sequence[Sequence[int]]) -> None:
        """Take in whole texts that were written for a company, as tokens. Without a name nothing is kept."""
        key = advertiser_key(company)
        if not key or not texts:
            return
        entry = self._advertisers.pop(key, None)
        if entry is None:
            entry = _Advertiser()
            self.size += entry.size
        self._advertisers[key] = entry
        entry.trie = None
        known = {each.tobytes() for each in entry.texts}
        for tokens in texts:
            array = np.array(tokens, np.int32)
            if array.tobytes() in known:
                # Told again it is new again.
                entry.texts = deque(each for each in entry.texts if each.tobytes() != array.tobytes())
            else:
                self._grow(entry, _TEXT_BYTES + _TOKEN_BYTES * len(array))
            entry.texts.appendleft(array)
            known.add(array.tobytes())
        # One advertiser takes at most an eighth, so that it does not drive out all others.
        while len(entry.texts) > MOST_TEXTS or (entry.texts and entry.size > max(self._max_bytes // 8, 1)):
            oldest = entry.texts.pop()
            self._grow(entry, -(_TEXT_BYTES + _TOKEN_BYTES * len(oldest)))
        if not entry.texts:
            self._drop(key)
        while self.size > self._max_bytes and self._advertisers:
            self._drop(next(iter(self._advertisers)))

    def trie(self, company: str) -> PhraseTrie | None:
        """The phrases of a company's recent texts; None: there are none."""
        key = advertiser_key(company)
        entry = self._advertisers.get(key) if key else None
        if entry is None:
            return None
        self._advertisers.move_to_end(key)
        if entry.trie is None:
            begin = start(self._vocabulary)
            entry.trie = PhraseTrie(
                (([begin, *text.tolist()], 0.5 ** (age / HALF_LIFE)) for age, text in enumerate(entry.texts)),
                self._vocabulary,
            )
        return entry.trie

    def _grow(self, entry: _Advertiser, size: int) -> None:
        entry.size += size
        self.size += size

    def _drop(self, key: str) -> None:
        self.size -= self._advertisers.pop(key).size


def advertiser_key(company: str) -> str:
    """What an advertiser is known by: its name, whatever the case and the spaces."""
    return " ".join(company.casefold().split())
