"""Best-first search over a trie, with branches verified ahead of need.

A *branch* is a prefix that ends where there is a choice; scoring it means to feed its tokens and score its children.
Branches are scored in order of their *key*: score so far plus the bound on what can still come (`bounds`). When no key
is over the worst of the `top_k` best finished paths, the ranking cannot change any more (A*; Hart, Nilsson and Raphael
1968, "A Formal Basis for the Heuristic Determination of Minimum Cost Paths"). With a proven bound the paths found are
those of exhaustive scoring.

An engine step costs nearly the same for one node as for several, so that each step takes along the branches that will
probably be scored next: those with the next best keys, and children of branches that are themselves in the step, whose
own scores are not known yet; the prior stands in for them. What is fed ahead changes when an answer is ready, never the
answer: it is that of scoring one branch after another.
"""

import heapq
from collections.abc import Callable, Generator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, Int32, StepOutput, TreeBatch, kept_parent
from bidtrie.scheduling.job import Chunk, Job
from bidtrie.trie.bounds import Bound
from bidtrie.trie.found import Found, SearchResult, SearchWork, best
from bidtrie.trie.likeliest import complete, likeliest_end
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring
from bidtrie.trie.search_options import SearchOptions

#: How much likelier than what is known a guess has to be to be fed instead, in nats.
_GUESS_PENALTY = 1.0
#: Rounding of sums of float64: a key that is lower by less is as good.
_ROUNDING = 1e-9

#: Nodes that a step takes at little more than the cost of one, now.
Ahead = Callable[[], int]


class _Branch:
    """A prefix that goes on, and once it is fed, what its children are worth."""

    __slots__ = (
        *("choice", "ends", "handle", "likely", "log_probability", "node"),
        *("onward", "parent", "score", "sure", "tokens"),
    )

    def __init__(self, node: int, parent: "_Branch | None") -> None:
        self.node, self.parent = node, parent
        self.score = self.log_probability = 0.0
        self.sure = self.likely = 0.0
        """The score with what the bound surely adds, and what it likely adds."""
        self.tokens: list[int] = []
        """From behind the parent's last token to where the choice is; set when it is first looked at."""
        self.choice: Int32 | None = None
        """The children to choose from; None before that, and where there is none."""
        self.handle = -1
        """The engine's, of the last token; -1 before it is fed."""
        self.onward: list[_Branch] = []
        """Children that go on, once it is fed."""
        self.ends: list[tuple[float, int, float]] = []
        """Children that lead to one segment each: score, node, log-probability."""

    @property
    def fed(self) -> bool:
        return self.handle >= 0


class BestFirst:
    """One search. `run` is its job; `result` is what is known when that is cut."""

    def __init__(
        self,
        engine: Engine,
        sequence: int,
        scoring: Scoring,
        bound: Bound,
        bonus: Potential | None,
        options: SearchOptions,
        chunk: Chunk,
        ahead: Ahead,
    ) -> None:
        self.scored = 0
        self._engine, self._sequence = engine, sequence
        self._scoring, self._trie = scoring, scoring.trie
        self._bound, self._bonus = bound, bonus
        self._options, self._chunk, self._ahead = options, chunk, ahead
        self._fed = 0
        self._trust = 1.0
        self._kept: set[int] = set()
        #: Branches to score, the one with the highest key first, ties in order of their nodes.
        self._frontier: list[tuple[float, int, _Branch]] = []
        #: Finished paths as score, a node on the path behind its last choice, log-probability; and the best scores.
        self._finished: list[tuple[float, int, float]] = []
        self._top: list[float] = []

    def run(self, prompt: list[int]) -> Job[SearchResult]:
        """Feed the prompt's last tokens and search."""
        allowed = self._scoring.allowed
        if allowed is not None and not len(allowed):
            return self.result(partial=False)
        root = _Branch(0, None)
        self._look_at(root, prompt)
        if root.choice is None:
            self._finish([(self._with_bonus(0.0, 0), 0, 0.0)])
            return self.result(partial=False)
        self._frontier = [(-np.inf, root.node, root)]
        while self._frontier and self._may_matter(-self._frontier[0][0]):
            if self.scored == self._options.branches:
                return self.result(partial=True)
            _, _, branch = self._frontier[0]
            if not branch.fed:
                yield from self._feed(self._plan(branch))
            heapq.heappop(self._frontier)
            self._score(branch)
        return self.result(partial=False)

    def _may_matter(self, key: float) -> bool:
        """Whether a path with a key as high may be among the best; an equal score may, for the order of ties."""
        return len(self._top) < self._options.top_k or key + _ROUNDING >= self._top[0]

    def result(self, *, partial: bool) -> SearchResult:
        """The best of what is finished; where the search was cut, also of what the branches left may lead to."""
        least = self._top[0] if len(self._top) == self._options.top_k else -np.inf
        found = {}
        for score, node, log_probability in self._finished:
            if score >= least:
                segment = int(self._trie.segment[likeliest_end(self._scoring, self._bonus, node)])
                found[segment] = Found(segment, score, log_probability)
        if partial:
            # A branch is worth what its best bonus is: of all of them only so many can be among the best.
            left = (
                (self._with_bonus(b.score, b.node), b.node, b.log_probability) for _, _, b in self._frontier
            )
            most = heapq.nsmallest(self._options.top_k, left, key=lambda each: (-each[0], each[1]))
            complete(found, most, self._scoring, self._bonus)
        work = SearchWork(self.scored, self._fed - self.scored, len(self._frontier))
        return SearchResult(best(found.values(), self._options.top_k), partial, work)

    def _with_bonus(self, score: float, node: int) -> float:
        return score if self._bonus is None else score + self._bonus[node]

    def _finish(self, paths: list[tuple[float, int, float]]) -> None:
        for path in paths:
            self._finished.append(path)
            if len(self._top) < self._options.top_k:
                heapq.heappush(self._top, path[0])
            else:
                heapq.heappushpop(self._top, path[0])

    def _score(self, branch: _Branch) -> None:
        """Let a fed branch's children into the search."""
        self.scored += 1
        self._finish(branch.ends)
        trust = self._bound.trust(self.scored)
        if trust != self._trust:
            self._trust = trust
            self._frontier = [(-self._key(each), node, each) for _, node, each in self._frontier]
            heapq.heapify(self._frontier)
        for child in branch.onward:
            key = self._key(child)
            if self._may_matter(key):
                heapq.heappush(self._frontier, (-key, child.node, child))

    def _key(self, branch: _Branch) -> float:
        return branch.sure + self._trust * branch.likely

    # Choosing what a step feeds.

    def _look_at(self, branch: _Branch, prompt: list[int] | None = None) -> None:
        """Follow the tokens without a choice to where one begins, or to the path's end."""
        trie, node = self._trie, branch.node
        branch.tokens = [int(trie.token[node])] if prompt is None else list(prompt)
        while trie.segment[node] < 0:
            children = self._scoring.children(node)
            if len(children) > 1 or not self._scoring.fold:
                branch.choice = children
                return
            node = int(children[0])
            branch.tokens.append(int(trie.token[node]))

    def _plan(self, needed: _Branch) -> list[_Branch]:
        """The branch that is needed now, and those fed ahead, parents first."""
        room = max(1, min(self._ahead(), self._chunk()))
        if not needed.tokens:
            self._look_at(needed)
        plan, size = [needed], len(needed.tokens)
        queue = [entry for entry in self._known() if entry[2] is not needed]
        heapq.heapify(queue)
        self._guess(needed, self._key(needed), room - size, queue)
        while queue and size < room:
            key, _, branch = heapq.heappop(queue)
            if not branch.tokens:
                self._look_at(branch)
            if size + len(branch.tokens) > room:
                continue
            plan.append(branch)
            size += len(branch.tokens)
            self._guess(branch, -key, room - size, queue)
        return plan

    def _known(self) -> list[tuple[float, int, _Branch]]:
        """Branches with a score that are not fed and may matter; their parents' handles are kept, others released."""
        known, kept = [], set()
        stack = [entry for entry in self._frontier if self._may_matter(-entry[0])]
        while stack:
            key, node, branch = stack.pop()
            if not branch.fed:
                known.append((key, node, branch))
                if branch.parent is not None:
                    kept.add(branch.parent.handle)
                continue
            kept.add(branch.handle)
            onward = [(-self._key(each), each.node, each) for each in branch.onward]
            stack += [entry for entry in onward if self._may_matter(-entry[0])]
        self._engine.release(sorted(self._kept - kept))
        self._kept &= kept
        return known

    def _guess(self, branch: _Branch, key: float, room: int, queue: list[tuple[float, int, _Branch]]) -> None:
        """Queue the children of a branch in the step by what the prior makes of the branch's key."""
        if room <= 0 or branch.choice is None or branch.parent is None:
            return  # nothing is known before the first step: the prior alone would guess
        nodes = branch.choice
        goes_on = ~self._ends(nodes)
        onward = nodes[goes_on]
        if not len(onward):
            return
        neutral = self._scoring.neutral(nodes, np.array([len(nodes)]))[goes_on]
        sure, likely = self._bound(np.append(onward, np.int32(branch.node)))
        bounds = sure + self._trust * likely
        gain = (1.0 - self._scoring.prior_weight) * neutral + bounds[:-1] - bounds[-1]
        for node, guess in zip(onward.tolist(), (key + gain - _GUESS_PENALTY).tolist(), strict=True):
            if self._may_matter(guess):
                heapq.heappush(queue, (-guess, node, _Branch(node, branch)))

    def _ends(self, nodes: Int32) -> NDArray[np.bool_]:
        """Which nodes leave no choice: bool [m]."""
        if self._scoring.fold:
            return np.asarray(self._scoring.segments_below(nodes) == 1)
        return np.asarray(self._trie.segment[nodes] >= 0)

    # A step.

    def _feed(self, plan: list[_Branch]) -> Generator[TreeBatch, StepOutput, None]:
        """Feed branches and see what their children are worth."""
        tokens: list[int] = []
        parents: list[int] = []
        last: dict[_Branch, int] = {}
        for branch in plan:
            first = len(tokens)
            if branch.parent is None:
                above = PREFIX_END
            elif branch.parent in last:
                above = last[branch.parent]
            else:
                above = kept_parent(branch.parent.handle)
            tokens += branch.tokens
            parents += [above, *range(first, len(tokens) - 1)]
            last[branch] = len(tokens) - 1
        choices = [branch.choice for branch in plan if branch.choice is not None]
        candidates = Candidates.of([self._trie.token[nodes] for nodes in choices])
        output = yield TreeBatch.of(
            tokens, self._sequence, parents, list(last.values()), candidates, logsumexp=not self._scoring.fold
        )
        handles = output.nodes[list(last.values())].tolist()
        self._engine.keep(handles)
        self._kept.update(handles)
        self._fed += len(plan)
        nodes = np.concatenate(choices)
        probabilities, gains = self._scoring.rows(output, choices)
        ends = self._ends(nodes)
        sure, likely = self._bound(nodes)
        bonus = np.zeros(len(nodes))
        if self._bonus is not None:
            bonus[ends] = self._bonus[nodes[ends]]
        columns = zip(
            *(each.tolist() for each in (nodes, probabilities, gains, ends, sure, likely, bonus)), strict=True
        )
        by_node = {(branch.parent, branch.node): branch for branch in plan}
        for branch, handle, choice in zip(plan, handles, choices, strict=True):
            branch.handle = handle
            for node, probability, gain, is_end, bound, margin, extra in islice(columns, len(choice)):
                score, log_probability = branch.score + gain, branch.log_probability + probability
                if is_end:
                    branch.ends.append((score + extra, node, log_probability))
                    continue
                # A child that was fed in the same step learns its score here; parents come first.
                child = by_node.get((branch, node)) or _Branch(node, branch)
                child.score, child.log_probability = score, log_probability
                child.sure, child.likely = score + bound, margin
                branch.onward.append(child)
