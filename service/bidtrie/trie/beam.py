"""Beam search over a trie, level by level.

A *hypothesis* is a trie node with the score of the path down to it. Each level asks the engine for the logits of
the hypotheses' children only, scores them, and lets the best `beam_width` go on: what is left out may have held
something better, so that the paths found are not always the best.

Trie-normalised, a node with one allowed child costs nothing (its probability is 1): such chains are folded and fed
together with the branch that needs them. Vocabulary-normalised it is one token a level, as in Hugging Face's beam
search with `prefix_allowed_tokens_fn` and `length_penalty=0` (https://huggingface.co/docs/transformers,
GenerationMixin): there a finished path must be among the level's best `beam_width` candidates to count, and the search
ends when no live hypothesis can beat the worst of `beam_width` finished ones.

A retriever's scores join as a potential: each node carries the best bonus of the allowed segments below it, so that
the beam prefers branches that the retriever believes in, and a finished path has exactly its own segment's bonus.
"""

import heapq
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, Int32, TreeBatch, kept_parent
from bidtrie.scheduling.job import Chunk, Job
from bidtrie.trie.found import Found, SearchResult, SearchWork, best
from bidtrie.trie.likeliest import complete
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring
from bidtrie.trie.search_options import SearchOptions


@dataclass(slots=True)
class _Hypothesis:
    """A trie node reached, with the tokens that must still be fed before its children can be scored."""

    node: int
    score: float
    log_probability: float
    parent: int
    """`parent` entry of the first pending token in the next batch: PREFIX_END or a kept node."""
    pending: list[int] = field(default_factory=list)


class Beam:
    """One search. `run` is its job; `result` is what is known when that is cut."""

    def __init__(
        self,
        engine: Engine,
        sequence: int,
        scoring: Scoring,
        bonus: Potential | None,
        options: SearchOptions,
        chunk: Chunk,
    ) -> None:
        self.engine, self.sequence = engine, sequence
        self.scoring, self.trie = scoring, scoring.trie
        self.bonus, self.options, self.chunk = bonus, options, chunk
        self.finished: list[Found] = []
        self.live: list[_Hypothesis] = []
        self.scored = 0
        self.branches = 0
        self.kept: list[int] = []

    def run(self, prompt: list[int]) -> Job[SearchResult]:
        self.live = self._start(prompt)
        while self.live:
            if self.scored == self.options.levels:
                return self.result(partial=True)
            self.live = yield from self._level(list(self.live))
            self.scored += 1
        return self.result(partial=False)

    def _start(self, prompt: list[int]) -> list[_Hypothesis]:
        if self.scoring.allowed is not None and not len(self.scoring.allowed):
            return []
        root = _Hypothesis(0, 0.0, 0.0, PREFIX_END, list(prompt))
        return self._descend([root])

    def _descend(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        """Fold forced chains: what is left ends at nodes with a choice; what has none left is finished."""
        live = []
        for hypothesis in hypotheses:
            while True:
                node = hypothesis.node
                if self.trie.segment[node] >= 0:
                    self._finish(hypothesis)
                    break
                children = self.scoring.children(node) if self.scoring.fold else None
                if children is None or len(children) > 1:
                    live.append(hypothesis)
                    break
                child = int(children[0])
                hypothesis.pending.append(int(self.trie.token[child]))
                hypothesis.node = child
        return live

    def _finish(self, hypothesis: _Hypothesis) -> None:
        segment, score = int(self.trie.segment[hypothesis.node]), self._worth(hypothesis)
        self.finished.append(Found(segment, score, hypothesis.log_probability))

    def _rank(self, hypothesis: _Hypothesis) -> tuple[float, int]:
        """Sorts best first; ties go to the node that comes first."""
        return -self._worth(hypothesis), hypothesis.node

    def _worth(self, hypothesis: _Hypothesis) -> float:
        """The score with the best bonus at the node or below."""
        return hypothesis.score + (self.bonus[hypothesis.node] if self.bonus is not None else 0.0)

    def _level(self, live: list[_Hypothesis]) -> Job[list[_Hypothesis]]:
        """Score the children of all live hypotheses and choose who goes on."""
        # A level wider than a step is fed in several.
        expanded: list[_Hypothesis] = []
        kept: list[int] = []
        while live:
            part: list[_Hypothesis] = []
            size, most = 0, self.chunk()
            while live and (not part or size + len(live[0].pending) <= most):
                size += len(live[0].pending)
                part.append(live.pop(0))
            children = [self.scoring.children(hypothesis.node) for hypothesis in part]
            output = yield self._batch(part, children)
            last = np.cumsum([len(hypothesis.pending) for hypothesis in part]) - 1
            handles = output.nodes[last].tolist()
            # Kept at once, all of them: which survive is known only when the whole level is scored.
            self.engine.keep(handles)
            kept += handles
            self.branches += len(part)
            probabilities, scores = self.scoring.rows(output, children)
            columns = zip(
                np.concatenate(children).tolist(), probabilities.tolist(), scores.tolist(), strict=True
            )
            for hypothesis, nodes, handle in zip(part, children, handles, strict=True):
                expanded += [
                    _Hypothesis(
                        node,
                        hypothesis.score + score,
                        hypothesis.log_probability + probability,
                        kept_parent(handle),
                        [int(self.trie.token[node])],
                    )
                    for node, probability, score in islice(columns, len(nodes))
                ]
        self.engine.release(self.kept)
        self.kept = kept
        survivors = self._prune(expanded)
        self._release_unused(survivors)
        return survivors

    def _batch(self, part: list[_Hypothesis], children: list[Int32]) -> TreeBatch:
        tokens: list[int] = []
        parent: list[int] = []
        last: list[int] = []
        for hypothesis in part:
            first = len(tokens)
            tokens += hypothesis.pending
            parent += [hypothesis.parent, *range(first, len(tokens) - 1)]
            last.append(len(tokens) - 1)
        candidates = Candidates.of([self.trie.token[nodes] for nodes in children])
        return TreeBatch.of(tokens, self.sequence, parent, last, candidates, logsumexp=not self.scoring.fold)

    def _prune(self, expanded: list[_Hypothesis]) -> list[_Hypothesis]:
        width = self.options.beam_width
        if self.scoring.fold:
            return heapq.nsmallest(width, self._descend(expanded), key=self._rank)
        # Hugging Face's rule: finished paths compete with live ones for a place among the level's best.
        ranked = sorted(expanded, key=self._rank)
        self._descend(
            [hypothesis for hypothesis in ranked[:width] if self.trie.segment[hypothesis.node] >= 0]
        )
        live = [hypothesis for hypothesis in ranked if self.trie.segment[hypothesis.node] < 0][:width]
        if live and self._cannot_improve(live[0]):
            return []
        return live

    def _cannot_improve(self, leader: _Hypothesis) -> bool:
        """Whether scores that can only fall leave nothing to gain: true scores only, a correction can raise them."""
        width = self.options.beam_width
        if self.options.prior_weight or self.bonus is not None or len(self.finished) < width:
            return False
        return leader.score <= heapq.nlargest(width, (found.score for found in self.finished))[-1]

    def _release_unused(self, survivors: list[_Hypothesis]) -> None:
        used = {hypothesis.parent for hypothesis in survivors}
        gone = [handle for handle in self.kept if kept_parent(handle) not in used]
        self.engine.release(gone)
        self.kept = [handle for handle in self.kept if kept_parent(handle) in used]

    def result(self, *, partial: bool) -> SearchResult:
        """The best of what is finished; where the search was cut, also of what the branches left may lead to."""
        found = {each.segment: each for each in self.finished}
        if partial:
            # A node's bonus is that of the end that completes it.
            left = [(self._worth(each), each.node, each.log_probability) for each in self.live]
            complete(found, left, self.scoring, self.bonus)
        return SearchResult(
            best(found.values(), self.options.top_k), partial, SearchWork(self.branches, 0, len(self.live))
        )
