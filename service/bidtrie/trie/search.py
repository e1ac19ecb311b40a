"""Beam search over a catalog's token trie: the targeting job.

A *hypothesis* is a trie node with the score of the path down to it. Each level asks the engine for the logits of
the hypotheses' children only, scores them, and lets the best `beam_width` go on.

Trie-normalised scores are log-probabilities renormalised over the allowed children. A node with one allowed child
costs nothing there (its probability is 1): such chains are folded and fed together with the branch that needs them.
Vocabulary-normalised scores are full-softmax log-probabilities, one token a level, as in Hugging Face's beam search
with `prefix_allowed_tokens_fn` and `length_penalty=0` (https://huggingface.co/docs/transformers, GenerationMixin):
there a finished path must be among the level's best `beam_width` candidates to count, and the search ends when no
live hypothesis can beat the worst of `beam_width` finished ones.

Prior correction subtracts `prior_weight` times the same score under neutral contexts (domain-conditional PMI; Holtzman
et al. 2021, "Surface Form Competition", arXiv 2104.08315), renormalised over the same children.

A retriever's scores join as a potential: each node carries the best bonus of the allowed segments below it, so that
the beam prefers branches that the retriever believes in, and a finished path has exactly its own segment's bonus.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, Float32, Int32, TreeBatch, kept_parent
from bidtrie.requests import Normalization
from bidtrie.scheduling.job import Chunk, Job, OutOfTime
from bidtrie.trie.trie import Trie

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search.

    levels         score at most this many levels of branches, the rest is `partial`; None: all
    allow_partial  when time runs out, return what is known by then
    """

    top_k: int
    beam_width: int
    normalization: Normalization = Normalization.TRIE
    prior_weight: float = 0.0
    levels: int | None = None
    allow_partial: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A finished path. `score` ranks; `log_probability` is the same without prior and bonus."""

    segment: int
    score: float
    log_probability: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Best first, at most `top_k`; `partial` when the search was ended before it was done."""

    found: list[Found]
    partial: bool


@dataclass(slots=True)
class _Hypothesis:
    """A trie node reached, with the tokens that must still be fed before its children can be scored."""

    node: int
    score: float
    log_probability: float
    parent: int
    """`parent` entry of the first pending token in the next batch: PREFIX_END or a kept node."""
    pending: list[int] = field(default_factory=list)


class Bonus:
    """Per-segment scores of a retriever, as a potential over the trie."""

    def __init__(self, trie: Trie, scores: Float32, allowed: NDArray[np.bool_]) -> None:
        """scores: [segments], already weighted; allowed: [nodes]."""
        at_node = np.full(len(trie), -np.inf, np.float64)
        ends = np.flatnonzero((trie.segment >= 0) & allowed)
        at_node[ends] = scores[trie.segment[ends]]
        levels = trie.levels
        for begin, end in zip(levels[-2:0:-1], levels[:1:-1], strict=True):
            np.maximum.at(at_node, trie.parent[begin:end], at_node[begin:end])
        self.at_node = at_node


def search(
    engine: Engine,
    trie: Trie,
    prefix: int,
    prompt: list[int],
    options: SearchOptions,
    *,
    allowed: NDArray[np.bool_] | None = None,
    prior: Float32 | None = None,
    bonus: Bonus | None = None,
    chunk: Chunk | None = None,
) -> Job[SearchResult]:
    """Rank the trie's segments after a prompt.

    prefix   open sequence whose committed tokens the prompt continues; it is shared, not changed
    prompt   token ids, at least one
    allowed  bool [nodes], nodes that lead to an allowed segment (`Trie.allowed`); None: all
    prior    float32 [nodes], mean neutral full-softmax log-probability of each node's token after its parent;
             needed when `options.prior_weight` is not 0
    chunk    most nodes of a step, now; None: as many as the engine takes

    A search that is cut completes the branches that are left by the bonus, else by the prior. OutOfTime passes where no
    level was scored, or partial answers are not allowed.
    """
    if options.prior_weight and prior is None:
        raise ValueError("prior_weight needs a prior")
    chunk = chunk or (lambda: engine.spec.max_nodes)
    sequence = engine.open(share=prefix)
    state = _Search(engine, trie, sequence, options, allowed, prior, bonus, chunk)
    try:
        while len(prompt) > (size := chunk()):
            output = yield TreeBatch.chain(prompt[:size], sequence)
            engine.commit(sequence, output.nodes.tolist())
            prompt = prompt[size:]
        return (yield from state.run(prompt))
    except OutOfTime:
        if state.scored and options.allow_partial:
            return state.partial_result()
        raise
    finally:
        engine.close(sequence)


class _Search:
    def __init__(
        self,
        engine: Engine,
        trie: Trie,
        sequence: int,
        options: SearchOptions,
        allowed: NDArray[np.bool_] | None,
        prior: Float32 | None,
        bonus: Bonus | None,
        chunk: Chunk,
    ) -> None:
        self.engine = engine
        self.trie = trie
        self.sequence = sequence
        self.options = options
        self.allowed = allowed
        self.prior = prior
        self.bonus = bonus
        self.chunk = chunk
        self.fold = options.normalization is Normalization.TRIE
        self.finished: list[Found] = []
        self.live: list[_Hypothesis] = []
        self.scored = 0
        self.kept: list[int] = []

    def run(self, prompt: list[int]) -> Job[SearchResult]:
        self.live = self._start(prompt)
        while self.live:
            if self.scored == self.options.levels:
                return self.partial_result()
            self.live = yield from self._level(list(self.live))
            self.scored += 1
        return SearchResult(self._best(self.finished), partial=False)

    def _start(self, prompt: list[int]) -> list[_Hypothesis]:
        if self.allowed is not None and not self.allowed[0]:
            return []
        root = _Hypothesis(0, 0.0, 0.0, PREFIX_END, list(prompt))
        return self._descend([root])

    def _children(self, node: int) -> Int32:
        """The allowed children of a node."""
        children = np.asarray(self.trie.children(node), np.int32)
        return children if self.allowed is None else children[self.allowed[children]]

    def _descend(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        """Fold forced chains: what is left ends at nodes with a choice; what has none left is finished."""
        live = []
        for hypothesis in hypotheses:
            while True:
                node = hypothesis.node
                if self.trie.segment[node] >= 0:
                    self._finish(hypothesis)
                    break
                children = self._children(node) if self.fold else None
                if children is None or len(children) > 1:
                    live.append(hypothesis)
                    break
                child = int(children[0])
                hypothesis.pending.append(int(self.trie.token[child]))
                hypothesis.node = child
        return live

    def _finish(self, hypothesis: _Hypothesis) -> None:
        bonus = self.bonus.at_node[hypothesis.node] if self.bonus else 0.0
        self.finished.append(
            Found(
                int(self.trie.segment[hypothesis.node]), hypothesis.score + bonus, hypothesis.log_probability
            )
        )

    def _rank(self, hypothesis: _Hypothesis) -> tuple[float, int]:
        """Sorts best first; ties go to the node that comes first."""
        bonus = self.bonus.at_node[hypothesis.node] if self.bonus else 0.0
        return -(hypothesis.score + bonus), hypothesis.node

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
            children = [self._children(hypothesis.node) for hypothesis in part]
            output = yield self._batch(part, children)
            last = np.cumsum([len(hypothesis.pending) for hypothesis in part]) - 1
            handles = output.nodes[last].tolist()
            # Kept at once, all of them: which survive is known only when the whole level is scored.
            self.engine.keep(handles)
            kept += handles
            for row, (hypothesis, nodes) in enumerate(zip(part, children, strict=True)):
                probabilities, scores = self._score(output.row(row), float(output.logsumexp[row]), nodes)
                expanded += [
                    _Hypothesis(
                        node,
                        hypothesis.score + score,
                        hypothesis.log_probability + probability,
                        kept_parent(handles[row]),
                        [int(self.trie.token[node])],
                    )
                    for node, score, probability in zip(
                        nodes.tolist(), scores.tolist(), probabilities.tolist(), strict=True
                    )
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
        return TreeBatch.of(tokens, self.sequence, parent, last, candidates, logsumexp=not self.fold)

    def _score(self, logits: Float32, logsumexp: float, nodes: Int32) -> tuple[Float64, Float64]:
        """Log-probabilities of a node's children, and what they add to the score."""
        probabilities = logits.astype(np.float64)
        probabilities -= _logsumexp(probabilities) if self.fold else logsumexp
        if not self.options.prior_weight:
            return probabilities, probabilities
        assert self.prior is not None
        neutral = self.prior[nodes].astype(np.float64)
        if self.fold:
            neutral -= _logsumexp(neutral)
        return probabilities, probabilities - self.options.prior_weight * neutral

    def _prune(self, expanded: list[_Hypothesis]) -> list[_Hypothesis]:
        width = self.options.beam_width
        if self.fold:
            return heapq.nsmallest(width, self._descend(expanded), key=self._rank)
        # Hugging Face's rule: finished paths compete with live ones for a place among the level's best.
        best = sorted(expanded, key=self._rank)
        self._descend([hypothesis for hypothesis in best[:width] if self.trie.segment[hypothesis.node] >= 0])
        live = [hypothesis for hypothesis in best if self.trie.segment[hypothesis.node] < 0][:width]
        if live and self._cannot_improve(live[0]):
            return []
        return live

    def _cannot_improve(self, best: _Hypothesis) -> bool:
        """Whether scores that can only fall leave nothing to gain: true scores only, a correction can raise them."""
        width = self.options.beam_width
        if self.options.prior_weight or self.bonus or len(self.finished) < width:
            return False
        return best.score <= heapq.nlargest(width, (found.score for found in self.finished))[-1]

    def _release_unused(self, survivors: list[_Hypothesis]) -> None:
        used = {hypothesis.parent for hypothesis in survivors}
        gone = [handle for handle in self.kept if kept_parent(handle) not in used]
        self.engine.release(gone)
        self.kept = [handle for handle in self.kept if kept_parent(handle) in used]

    def partial_result(self) -> SearchResult:
        """The best of what is finished, and of what the branches that are left may lead to."""
        found = {each.segment: each for each in self.finished}
        for hypothesis in self.live:
            node = self._likeliest_end(hypothesis.node)
            segment = int(self.trie.segment[node])
            score = hypothesis.score + (self.bonus.at_node[node] if self.bonus else 0.0)
            if segment not in found or found[segment].score < score:
                found[segment] = Found(segment, score, hypothesis.log_probability)
        return SearchResult(self._best(list(found.values())), partial=True)

    def _likeliest_end(self, node: int) -> int:
        """The end of the path below a node that the bonus prefers, then the shorter one, then the likelier a priori."""
        while self.trie.segment[node] < 0:
            children = self._children(node)
            ends = self.trie.segment[children] >= 0
            prior = np.zeros(len(children)) if self.prior is None else self.prior[children]
            bonus = np.zeros(len(children)) if self.bonus is None else self.bonus.at_node[children]
            node = int(children[np.lexsort((prior, ends, bonus))[-1]])
        return node

    def _best(self, found: list[Found]) -> list[Found]:
        return heapq.nsmallest(self.options.top_k, found, key=lambda each: (-each.score, each.segment))


def _logsumexp(values: Float64) -> float:
    largest = values.max()
    return float(largest + np.log(np.exp(values - largest).sum()))
