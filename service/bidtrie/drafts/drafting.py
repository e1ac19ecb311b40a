"""The sources of drafts for all requests of a model, and what is learned about them."""

from collections.abc import Sequence
from pathlib import Path

from bidtrie.drafts.approved import ApprovedCreatives, OnRead
from bidtrie.drafts.drafter import Drafter, Source
from bidtrie.drafts.phrase_trie import MOST_VOCABULARY, PhraseTrie, start
from bidtrie.drafts.recent import RecentOutputs
from bidtrie.drafts.request_text import Encode, request_phrases
from bidtrie.drafts.trigger import Trigger
from bidtrie.requests import CreativeText, GenerateQuery


class Drafting:
    """Makes a request's drafter. `drafter` and `written` are called on one thread, the event loop's."""

    def __init__(
        self,
        encode: Encode,
        vocabulary: int,
        *,
        levels: int = 1,
        draft_nodes: int = 8,
        memory_bytes: int = 4 << 20,
        approved: Path | None = None,
        examples: Sequence[str] = (),
        on_approved: OnRead = lambda texts: None,
    ) -> None:
        """`examples` are texts of the prompt that every request has; `on_approved` is of ApprovedCreatives.

        Raises InvalidInput naming a wrong file.
        """
        self._encode = encode
        self._vocabulary = vocabulary
        self._draft_nodes = draft_nodes if vocabulary <= MOST_VOCABULARY else 0
        self._triggers = [Trigger() for _ in range(levels)]
        self.approved = None
        if approved is not None:
            self.approved = ApprovedCreatives(approved, encode, vocabulary, on_approved)
        self.recent = RecentOutputs(memory_bytes, vocabulary)
        begin = start(vocabulary)
        self._examples = PhraseTrie((([begin, *encode(text)], 1.0) for text in examples), vocabulary)

    def sources(self, query: GenerateQuery) -> list[Source]:
        """What a request's drafts are made of; nothing where drafts are off."""
        if not self._draft_nodes:
            return []
        product = query.product
        sources = [Source("request", request_phrases(query, self._encode, self._vocabulary))]
        recent = self.recent.trie(product.company)
        if recent is not None:
            sources.append(Source("recent", recent))
        if self.approved is not None:
            tries = self.approved.tries(product.company, product.industry)
            sources += [Source(f"approved for {kind}", trie) for kind, trie in tries]
        if len(self._examples):
            sources.append(Source("prompt", self._examples))
        return sources

    def drafter(self, query: GenerateQuery, sources: Sequence[Source], level: int = 0) -> Drafter | None:
        """A drafter for a request on a compression level; None: drafts are off."""
        if not self._draft_nodes:
            return None
        return Drafter(
            sources,
            self._triggers[level],
            vocabulary=self._vocabulary,
            sampled=query.sampling.temperature > 0,
            most_nodes=self._draft_nodes,
        )

    def written(self, query: GenerateQuery, texts: Sequence[CreativeText]) -> None:
        """Remember a request's finished texts for its advertiser."""
        if self._draft_nodes and query.product.company and texts:
            self.recent.add(query.product.company, [self._encode(each.text) for each in texts])

    def watch(self) -> None:
        """Look after the file of approved creatives, on a thread of its own."""
        if self.approved is not None:
            self.approved.watch()

    def close(self) -> None:
        """End the thread that looks after the file."""
        if self.approved is not None:
            self.approved.close()
