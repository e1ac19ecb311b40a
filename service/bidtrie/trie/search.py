"""Searching a catalog's token trie: the targeting job.

Three ways, all of which verify many branches in one engine step: best-first with a proven bound (exact), best-first
with a likely one, and a beam. `scoring` says what a score is, `bounds` what the bounds are.
"""

from bidtrie.engine.base import Engine
from bidtrie.engine.tree_batch import Float32, TreeBatch
from bidtrie.requests import Normalization, Search
from bidtrie.scheduling.job import Chunk, Job, OutOfTime
from bidtrie.trie.allowed import Allowed
from bidtrie.trie.beam import Beam
from bidtrie.trie.best_first import Ahead, BestFirst
from bidtrie.trie.bounds import Bound, ExactBound, LikelyBound
from bidtrie.trie.found import SearchResult
from bidtrie.trie.potential import Potential
from bidtrie.trie.scoring import Scoring
from bidtrie.trie.search_options import SearchOptions
from bidtrie.trie.trie import Trie

#: Nodes that a step takes along where nothing is known of its cost.
_AHEAD = 8


def search(
    engine: Engine,
    trie: Trie,
    prefix: int,
    prompt: list[int],
    options: SearchOptions,
    *,
    allowed: Allowed | None = None,
    prior: Float32 | None = None,
    bonus: Float32 | None = None,
    chunk: Chunk | None = None,
    ahead: Ahead | None = None,
) -> Job[SearchResult]:
    """Rank the trie's segments after a prompt.

    prefix   open sequence whose committed tokens the prompt continues; it is shared, not changed
    prompt   token ids, at least one
    allowed  which segments there are (`Trie.allow`); None: all
    prior    float32 [nodes], mean neutral full-softmax log-probability of each node's token after its parent;
             needed when `options.prior_weight` is not 0
    bonus    float32 [segments], a retriever's weighted scores, added to those of finished paths
    chunk    most nodes of a step, now; None: as many as the engine takes
    ahead    nodes that a step takes at little more than the cost of one, now; changes the time, never the answer

    A search that is cut completes the branches that are left by the bonus, else by the prior. OutOfTime passes where no
    branch was scored, or partial answers are not allowed.
    """
    chunk = chunk or (lambda: engine.spec.max_nodes)
    fold = options.normalization is Normalization.TRIE
    scoring = Scoring(trie, allowed, prior, options.prior_weight, fold=fold)
    potential = None if bonus is None else Potential(trie, bonus, allowed)
    sequence = engine.open(share=prefix)
    try:
        run: Beam | BestFirst
        if options.method is Search.BEAM:
            run = Beam(engine, sequence, scoring, potential, options, chunk)
        else:
            bound: Bound = LikelyBound(scoring, potential, options.margin)
            if options.method is Search.EXACT:
                bound = ExactBound(scoring, bonus)
            run = BestFirst(
                engine, sequence, scoring, bound, potential, options, chunk, ahead or (lambda: _AHEAD)
            )
        while len(prompt) > (size := chunk()):
            output = yield TreeBatch.chain(prompt[:size], sequence)
            engine.commit(sequence, output.nodes.tolist())
            prompt = prompt[size:]
        return (yield from run.run(prompt))
    except OutOfTime:
        if run.scored and options.allow_partial:
            return run.result(partial=True)
        raise
    finally:
        engine.close(sequence)
