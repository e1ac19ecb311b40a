"""Grows draft trees: the likeliest continuations of all sources together, as many as pay.

A continuation's probability is its share among what followed the context in a source, times how often that source has
been right with contexts of that length; what several sources say is taken as independent evidence. Nodes are taken
in order of the probability that the text gets there, over all texts of the step, until the next one does not pay.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bidtrie.creative.constraint import Constraint, TextState
from bidtrie.drafts.phrase_trie import MOST_CONTEXT, Following, context_of
from bidtrie.drafts.trigger import Guess, Trigger

#: Seconds that a step of so many nodes of a request takes, each of which wants a full row of logits.
StepSeconds = Callable[[int], float]

#: What may be decided of a step: see `DraftCounts`.
DECISIONS = ("drafted", "not_worth", "no_draft")

#: Where the text gets with less probability than this, nothing is drafted.
_LEAST_PROBABILITY = 0.02


class Phrases(Protocol):
    """What a source is asked: see `PhraseTrie.following`."""

    def following(self, context: Sequence[int]) -> Following | None:
        """What followed the longest known end of a context."""


@dataclass(frozen=True, slots=True)
class Source:
    """Phrases, and by which name their hit rate is learned: "request", "recent", "approved for industry"."""

    name: str
    phrases: Phrases


@dataclass(frozen=True, slots=True)
class Root:
    """A text whose next token is certain and about to be fed: `path` ends with it, `state` is the text with it.

    limit: characters that the text may have; depth: tokens that the model's context has room for behind it.
    """

    state: TextState
    path: Sequence[int]
    limit: int
    depth: int


@dataclass(slots=True)
class DraftTree:
    """Nodes to feed below a root. Parents come before their children; -1 is the root.

    guesses: at 0 what the sources said of the root's continuations, at i + 1 of node i's.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class DraftCounts:
    """What drafting did for a request.

    decisions: steps by what was decided: "drafted", "not_worth" (no node paid), "no_draft" (no source knew any
    legal continuation, or none was asked); trees: drafts that were fed; nodes: their nodes; accepted: those of
    them that became text, lengths: by how many of a tree did.
    """

    decisions: Counter[str] = field(default_factory=Counter)
    trees: int = 0
    nodes: int = 0
    accepted: int = 0
    lengths: Counter[int] = field(default_factory=Counter)

    def verified(self, accepted: int) -> None:
        """A tree was fed, and so many of its nodes became text."""
        self.trees += 1
        self.accepted += accepted
        self.lengths[accepted] += 1


@dataclass(slots=True)
class _Node:
    """A node that may be fed: where it hangs, and what it would make of the text."""

    tree: int
    parent: int
    token: int
    depth: int
    state: TextState
    context: tuple[int, ...]


class Drafter:
    """Drafts for one request. Once made, it belongs to the engines' thread."""

    def __init__(
        self, sources: Sequence[Source], trigger: Trigger, *, vocabulary: int, sampled: bool, most_nodes: int
    ) -> None:
        """`sampled`: tokens are drawn rather than the likeliest; `most_nodes`: of a text and step."""
        self.counts = DraftCounts()
        self.trigger = trigger
        self._sources = [(trigger.rates(each.name, sampled), each.phrases) for each in sources]
        self._vocabulary = vocabulary
        self._most_nodes = most_nodes

    def grow(
        self, roots: Sequence[Root], constraint: Constraint, room: int, seconds: StepSeconds
    ) -> list[DraftTree] | None:
        """A tree for each root, maybe empty; None: the sources were not asked. All trees have `room` nodes at most."""
        trigger = self.trigger
        if room < 1 or not self._sources or not trigger.looks():
            self._decide("no_draft")
            return None
        begin = time.perf_counter()
        trees = [DraftTree() for _ in roots]
        heap: list[tuple[float, int, _Node]] = []
        found = 0
        for i, root in enumerate(roots):
            context = context_of(root.path, self._vocabulary)
            above = _Node(i, -1, -1, 0, root.state, context)
            found = self._expand(above, 1.0, trees[i], heap, found)
        decision = "not_worth" if heap else "no_draft"
        gained = float(len(roots))
        count, took = 0, seconds(len(roots))
        while heap and count < room:
            negative, _, node = heap[0]
            more = seconds(len(roots) + count + 1) - took
            if not trigger.pays(-negative, gained, took, more):
                break
            heapq.heappop(heap)
            root, tree = roots[node.tree], trees[node.tree]
            if node.depth > root.depth or len(tree) >= self._most_nodes:
                continue
            token, state, limit = node.token, node.state, root.limit
            if not constraint.may_continue(state, token, limit):
                continue
            node.state = constraint.advance(state, token)
            node.context = (*node.context[1 - MOST_CONTEXT :], token)
            tree.tokens.append(token)
            tree.parents.append(node.parent)
            node.parent = len(tree) - 1
            found = self._expand(node, -negative, tree, heap, found)
            count += 1
            gained -= negative
            took += more
        self._decide("drafted" if count else decision)
        self.counts.nodes += count
        trigger.built(count, time.perf_counter() - begin)
        return trees

    def _decide(self, decision: str) -> None:
        self.counts.decisions[decision] += 1
        self.trigger.decided(decision == "drafted")

    def _expand(
        self,
        node: _Node,
        probability: float,
        tree: DraftTree,
        heap: list[tuple[float, int, _Node]],
        found: int,
    ) -> int:
        """Ask the sources how the text goes on behind a node; returns how many continuations were found so far."""
        context = node.context
        guess: Guess = []
        merged: dict[int, float] = {}
        for rates, phrases in self._sources:
            following = phrases.following(context)
            if following is None:
                continue
            length, children = following
            rate = rates[length - 1]
            guess.append((rate, children))
            hits = rate.value
            for token, share in children:
                before = merged.get(token, 0.0)
                merged[token] = before + (1.0 - before) * hits * share
        tree.guesses.append(guess)
        for token, chance in merged.items():
            chance *= probability
            if chance > _LEAST_PROBABILITY:
                child = _Node(node.tree, node.parent, token, node.depth + 1, node.state, context)
                heapq.heappush(heap, (-chance, found, child))
                found += 1
        return found
