"""What every engine must do. Each check is a function of a `Subject`; test modules run them on their engines.

`CHECKS` holds for every engine, `INVARIANCE_CHECKS` for those that promise the same bits whatever else is
in the batch, `SLOT_CHECKS` for those whose KV slots can be counted.
"""

from collections.abc import Callable, Sequence

import numpy as np
from bidtrie.engine.tree_batch import PREFIX_END, Candidates, TreeBatch, kept_parent
from bidtrie.errors import OutOfSlots
from engine.random_calls import make_random_calls
from engine.twin import Subject, Twin

Check = Callable[[Subject], None]

CHECKS: dict[str, Check] = {}
INVARIANCE_CHECKS: dict[str, Check] = {}
SLOT_CHECKS: dict[str, Check] = {}


def _in(registry: dict[str, Check]) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        registry[check.__name__] = check
        return check

    return register


def tokens_of(seed: int, count: int, vocabulary: int = 250) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()


def tree_of(seed: int, count: int, sequence: int, **options: object) -> TreeBatch:
    """A random tree on the prefix's end, with several roots, that wants the logits of every node."""
    rng = np.random.default_rng(seed)
    parent = [int(rng.integers(-1, i)) for i in range(count)]
    return TreeBatch.of(tokens_of(seed, count), sequence, parent, range(count), **options)


# What a node sees.


@_in(CHECKS)
def prompt(subject: Subject) -> None:
    with Twin(subject) as twin:
        twin.chain(twin.open(), tokens_of(1, 40))


@_in(CHECKS)
def decoding(subject: Subject) -> None:
    with Twin(subject) as twin:
        sequence = twin.open()
        for token in tokens_of(2, 12):
            twin.commit(sequence, twin.chain(sequence, [token]))


@_in(CHECKS)
def chunked_prompt(subject: Subject) -> None:
    with Twin(subject) as twin:
        sequence, tokens = twin.open(), tokens_of(3, 33)
        for first, last in ((0, 1), (1, 8), (8, 24), (24, 33)):
            twin.commit(sequence, twin.chain(sequence, tokens[first:last]))


@_in(CHECKS)
def tree(subject: Subject) -> None:
    """Siblings, cousins and other roots are invisible, and a node's position is its depth, not its index."""
    with Twin(subject) as twin:
        sequence = twin.open()
        twin.step(tree_of(4, 40, sequence))
        twin.feed(sequence, tokens_of(5, 17))
        twin.step(tree_of(6, 40, sequence))


@_in(CHECKS)
def last_token_again(subject: Subject) -> None:
    """A prefix's last token fed again under a prefix that ends before it gives the logits of that prefix."""
    with Twin(subject) as twin:
        first, tokens = twin.open(), tokens_of(7, 9)
        twin.feed(first, tokens)
        again = twin.open(first, 8)
        twin.chain(again, tokens[8:])


@_in(CHECKS)
def several_sequences(subject: Subject) -> None:
    """Nodes of prefixes of all lengths, none included, interleaved in one batch."""
    with Twin(subject) as twin:
        sequences = [twin.open() for _ in range(5)]
        for i, length in enumerate((0, 1, 7, 16, 33)):
            twin.feed(sequences[i], tokens_of(10 + i, length))
        rng = np.random.default_rng(8)
        owners = rng.integers(0, 5, 48)
        parent = []
        for i, owner in enumerate(owners):
            parent.append(int(rng.choice([PREFIX_END, *np.flatnonzero(owners[:i] == owner)])))
        owned = [sequences[owner] for owner in owners]
        twin.step(TreeBatch.of(tokens_of(9, 48), owned, parent, range(48)))


# The life of a node.


@_in(CHECKS)
def commit_a_branch(subject: Subject) -> None:
    """A path that is not the first in the batch becomes the prefix; what follows sees it and nothing else."""
    with Twin(subject) as twin:
        sequence = twin.open()
        twin.feed(sequence, tokens_of(20, 3))
        #        0 -> 1 -> 3, 0 -> 2 -> 4 -> 5
        nodes = twin.step(TreeBatch.of([1, 2, 3, 4, 5, 6], sequence, [-1, 0, 0, 1, 2, 4], range(6)))
        twin.commit(sequence, [nodes[i] for i in (0, 2, 4)])
        twin.chain(sequence, [6, 7, 8])
        twin.step(tree_of(21, 12, sequence))


@_in(CHECKS)
def commit_keeps_descendants(subject: Subject) -> None:
    """Nodes below a committed path stay what they were, kept or not, and can be committed and hung on."""
    with Twin(subject) as twin:
        sequence = twin.open()
        #        0 -> 1 -> 2 -> 3, 1 -> 4, 0 -> 5
        nodes = twin.step(TreeBatch.of([1, 2, 3, 4, 5, 6], sequence, [-1, 0, 1, 2, 1, 0]))
        twin.commit(sequence, nodes[:1])
        twin.keep([nodes[4], nodes[3]])
        twin.commit(sequence, nodes[1:2])
        twin.rejects_keep([nodes[5]])
        twin.rejects_commit(sequence, [nodes[5]])
        twin.keep([nodes[2]])
        twin.step(
            TreeBatch.of([7, 8, 9], sequence, [kept_parent(nodes[3]), kept_parent(nodes[4]), -1], [0, 1, 2])
        )
        twin.commit(sequence, [nodes[2], nodes[3]])
        twin.rejects_step(TreeBatch.of([1], sequence, [kept_parent(nodes[4])]))
        twin.chain(sequence, [9, 8])


@_in(CHECKS)
def commit_drops_the_rest(subject: Subject) -> None:
    """Of its own sequence only: another sequence's nodes are none of a commit's business."""
    with Twin(subject) as twin:
        first, second = twin.open(), twin.open()
        nodes = twin.step(
            TreeBatch.of([1, 2, 3, 4, 5], [first, first, first, second, second], [-1, 0, 0, -1, 3])
        )
        twin.keep([nodes[2], nodes[4]])
        twin.commit(first, nodes[:2])
        twin.rejects_step(TreeBatch.of([1], first, [kept_parent(nodes[2])]))
        twin.rejects_keep([nodes[2]])
        twin.rejects_release([nodes[2]])
        twin.step(TreeBatch.of([6, 7], [second, first], [kept_parent(nodes[4]), -1], [0, 1]))


@_in(CHECKS)
def kept_nodes_over_several_steps(subject: Subject) -> None:
    """A beam: each step hangs children on the survivors of the last; ancestors stay as long as needed."""
    rng = np.random.default_rng(22)
    with Twin(subject) as twin:
        sequence = twin.open()
        twin.feed(sequence, tokens_of(23, 11))
        beam = twin.step(tree_of(24, 6, sequence))
        for _ in range(5):
            survivors = rng.choice(beam, 3, replace=False).tolist()
            twin.keep(survivors)
            parents = [kept_parent(int(node)) for node in rng.choice(survivors, 8)]
            children = twin.step(TreeBatch.of(rng.integers(0, 250, 9), sequence, [*parents, 4], range(9)))
            twin.release(survivors)
            beam = children
        twin.chain(sequence, [1, 2])


@_in(CHECKS)
def keep_without_parents(subject: Subject) -> None:
    """A kept node's unkept ancestors cannot be used, but the node still sees them, steps later."""
    with Twin(subject) as twin:
        sequence, other = twin.open(), twin.open()
        twin.feed(sequence, [9, 9, 8])
        nodes = twin.chain(sequence, [1, 2, 3, 4])
        twin.keep(nodes[2:3])
        for seed in range(3):
            twin.step(tree_of(seed, 20, other))
        for dead in (nodes[0], nodes[1], nodes[3]):
            twin.rejects_step(TreeBatch.of([1], sequence, [kept_parent(dead)]))
            twin.rejects_keep([dead])
            twin.rejects_release([dead])
        twin.rejects_commit(sequence, nodes[:3])
        twin.rejects_commit(sequence, nodes[2:3])
        twin.step(TreeBatch.of([5, 6], sequence, [kept_parent(nodes[2]), 0], [0, 1]))


@_in(CHECKS)
def release_leaves_kept_descendants(subject: Subject) -> None:
    with Twin(subject) as twin:
        sequence = twin.open()
        nodes = twin.chain(sequence, [1, 2, 3, 4])
        twin.keep(nodes)
        twin.step(tree_of(25, 10, sequence))
        twin.release([nodes[0], nodes[2]])
        twin.step(tree_of(26, 10, sequence))
        twin.step(TreeBatch.of([5, 6], sequence, [kept_parent(nodes[1]), kept_parent(nodes[3])], [0, 1]))
        twin.rejects_step(TreeBatch.of([5], sequence, [kept_parent(nodes[2])]))
        twin.rejects_commit(sequence, nodes[:2])


@_in(CHECKS)
def commit_kept_nodes(subject: Subject) -> None:
    """A path of nodes from several steps is committed as one from a single step is."""
    with Twin(subject) as twin:
        sequence, other = twin.open(), twin.open()
        twin.feed(sequence, [3])
        first = twin.chain(sequence, [1, 2])
        twin.keep(first)
        twin.feed(other, tokens_of(27, 20))
        second = twin.step(TreeBatch.of([4, 5], sequence, [kept_parent(first[1]), 0]))
        twin.commit(sequence, [*first, *second])
        twin.chain(sequence, [6])


@_in(CHECKS)
def handles_die(subject: Subject) -> None:
    """Unkept: at the next step. Released, committed, dropped, closed: at once. None comes back."""
    with Twin(subject) as twin:
        sequence, closed = twin.open(), twin.open()
        unkept = twin.chain(sequence, [1, 2])
        twin.step(TreeBatch.of([1], sequence, [-1]))
        released = twin.chain(sequence, [3])
        twin.keep(released)
        twin.release(released)
        twin.rejects_release(released)
        committed = twin.chain(sequence, [4])
        twin.commit(sequence, committed)
        mine = twin.chain(closed, [5])
        twin.keep(mine)
        twin.close(closed)
        twin.rejects_closed(closed)
        dead = [*unkept, *released, *committed, *mine]
        for seed in range(8):
            for node in dead:
                twin.rejects_keep([node])
                twin.rejects_release([node])
                twin.rejects_commit(sequence, [node])
                twin.rejects_step(TreeBatch.of([1], sequence, [kept_parent(node)]))
            twin.step(tree_of(seed, 16, sequence))
        twin.chain(sequence, [6, 7])


@_in(CHECKS)
def a_failed_step_ends_no_life(subject: Subject) -> None:
    """Nodes of the last good step can still be kept and committed after a step that raised."""
    with Twin(subject) as twin:
        sequence = twin.open()
        nodes = twin.chain(sequence, [1, 2, 3])
        twin.rejects_step(TreeBatch.of([1], sequence, [0]))
        twin.keep(nodes[1:])
        twin.rejects_step(TreeBatch.of([999_999], sequence, [-1]))
        twin.commit(sequence, nodes[:1])
        twin.step(TreeBatch.of([4, 5], sequence, [kept_parent(nodes[1]), kept_parent(nodes[2])], [0, 1]))


@_in(CHECKS)
def unkept_parents(subject: Subject) -> None:
    """Only kept nodes can be parents in a later step: an unkept one dies as that step begins."""
    with Twin(subject) as twin:
        sequence = twin.open()
        nodes = twin.chain(sequence, [1, 2])
        twin.rejects_step(TreeBatch.of([3], sequence, [kept_parent(nodes[1])]))
        twin.keep(nodes[1:])
        twin.step(TreeBatch.of([3], sequence, [kept_parent(nodes[1])], [0]))


# Sequences that share a prefix.


@_in(CHECKS)
def shared_prefix(subject: Subject) -> None:
    """Whole or in part, of a sequence that itself shares; each goes its own way, and outlives its origin."""
    with Twin(subject) as twin:
        origin = twin.open()
        twin.feed(origin, tokens_of(30, 19))
        whole = twin.open(origin)
        part = twin.open(origin, 7)
        none = twin.open(origin, 0)
        twin.commit(whole, twin.chain(whole, [1, 2]))
        twin.commit(part, twin.chain(part, [3]))
        part_of_whole = twin.open(whole, 20)
        twin.close(origin)
        twin.feed(none, tokens_of(31, 30))
        for sequence in (whole, part, none, part_of_whole):
            twin.chain(sequence, [4, 5])
        twin.close(whole)
        twin.close(part)
        twin.feed(twin.open(), tokens_of(32, 60))
        twin.step(
            TreeBatch.of(
                [6, 7, 8], [none, part_of_whole, part_of_whole], [PREFIX_END, PREFIX_END, 1], range(3)
            )
        )


@_in(CHECKS)
def sharing_sees_commits_only(subject: Subject) -> None:
    """Nodes that are merely live are not part of what a new sequence shares, and cannot be used in it."""
    with Twin(subject) as twin:
        origin = twin.open()
        twin.feed(origin, [1, 2])
        nodes = twin.chain(origin, [3, 4])
        twin.keep(nodes)
        copy = twin.open(origin)
        twin.rejects_commit(copy, nodes)
        twin.rejects_step(TreeBatch.of([5], copy, [kept_parent(nodes[1])]))
        twin.chain(copy, [5])
        twin.commit(origin, nodes)
        twin.chain(copy, [6])
        twin.chain(origin, [6])


@_in(CHECKS)
def closed_memory_is_not_seen(subject: Subject) -> None:
    """Slots that others used before hold nothing that a new sequence could see."""
    with Twin(subject, slots=48) as twin:
        for seed in range(6):
            sequence = twin.open()
            twin.feed(sequence, tokens_of(seed, 20))
            nodes = twin.step(tree_of(seed, 12, sequence))
            twin.keep(nodes[5:])
            twin.chain(sequence, [1, 2, 3])
            twin.close(sequence)


# What a row holds.


@_in(CHECKS)
def candidates(subject: Subject) -> None:
    """Any ids in any order, repeated ones included; an empty row is the whole vocabulary."""
    with Twin(subject) as twin:
        sequence = twin.open()
        twin.feed(sequence, [1, 2, 3])
        vocabulary = subject.checkpoint.config.vocab_size
        wanted = Candidates.of([[5], [], [9, 3, 3, vocabulary - 1, 0], range(vocabulary - 1, -1, -1), [7, 7]])
        twin.step(
            TreeBatch.of(
                [4, 5, 6, 7, 8],
                sequence,
                [-1, 0, 0, 1, 3],
                [0, 4, 1, 3, 2],
                wanted,
                [True, False] * 2 + [True],
            )
        )


@_in(CHECKS)
def candidate_rows_equal_full_rows(subject: Subject) -> None:
    with Twin(subject) as twin:
        engine, rows = twin.engine, [[3, 1, 2], [250], [0, 299, 17, 17], range(0, 300, 7)]
        sequence = engine.open()
        batch = TreeBatch.chain([1, 2, 3, 4], sequence)
        full = engine.step(TreeBatch.of(batch.tokens, sequence, batch.parent, range(4), logsumexp=True))
        some = engine.step(
            TreeBatch.of(batch.tokens, sequence, batch.parent, range(4), Candidates.of(rows), logsumexp=True)
        )
        limit = 0 if subject.batch_invariant else subject.tolerance
        for r, ids in enumerate(rows):
            np.testing.assert_allclose(some.row(r), full.row(r)[list(ids)], rtol=0, atol=limit)
            row = full.row(r).astype(np.float64)
            np.testing.assert_allclose(full.logsumexp[r], np.log(np.exp(row).sum()), rtol=0, atol=2e-5)
        np.testing.assert_allclose(some.logsumexp, full.logsumexp, rtol=0, atol=limit)


@_in(CHECKS)
def rows_in_any_order(subject: Subject) -> None:
    """Rows come in the order of `logits_for`, which may repeat nodes, or name none."""
    with Twin(subject) as twin:
        sequence = twin.open()
        parent = [-1, 0, 1, 0, -1, 4]
        twin.step(
            TreeBatch.of(
                [1, 2, 3, 4, 5, 6], sequence, parent, [5, 0, 0, 3], logsumexp=[False, True, False, True]
            )
        )
        twin.step(TreeBatch.of([1, 2, 3, 4, 5, 6], sequence, parent, []))
        twin.step(
            TreeBatch.of([1, 2, 3, 4, 5, 6], sequence, parent, [5, 4, 3, 2, 1, 0], Candidates.of([[2]] * 6))
        )


# Wrong calls.


@_in(CHECKS)
def wrong_batches(subject: Subject) -> None:
    with Twin(subject) as twin:
        sequence, other, closed = twin.open(), twin.open(), twin.open()
        twin.feed(sequence, [1, 2])
        foreign, mine = twin.step(TreeBatch.of([3, 4], [other, sequence], [-1, -1]))
        twin.keep([foreign, mine])
        twin.close(closed)
        vocabulary = subject.checkpoint.config.vocab_size

        def rejects(
            tokens: Sequence[int], parent: Sequence[int], *more: object, of: object = sequence
        ) -> None:
            twin.rejects_step(TreeBatch.of(tokens, of, parent, *more))

        rejects([vocabulary], [-1])
        rejects([-1], [-1])
        rejects([1, 2, vocabulary], [-1, 0, 1])
        rejects([1], [-1], of=closed)
        rejects([1], [-1], of=12345)
        rejects([1], [-1], of=-1)
        rejects([1], [0])
        rejects([1, 2], [1, -1])
        rejects([1, 2], [-1, 5])
        rejects([1, 2], [-1, 0], of=[sequence, other])
        rejects([1], [kept_parent(foreign)])
        rejects([1], [kept_parent(987_654)])
        rejects([1], [np.iinfo(np.int32).min])
        rejects([1, 2], [-1, 0], [2])
        rejects([1, 2], [-1, 0], [-1])
        rejects([1, 2], [-1, 0], [1], Candidates.of([[vocabulary]]))
        rejects([1, 2], [-1, 0], [1], Candidates.of([[0, -1]]))
        rejects([1, 2], [-1, 0], [1], Candidates.of([[0], [1]]))
        rejects([1, 2], [-1, 0], [0, 1], Candidates.of([[0]]))
        rejects([1, 2], [-1, 0], [0, 1], Candidates(np.array([0, 2, 1], np.int32), np.array([1], np.int32)))
        rejects([1, 2], [-1, 0], [0], Candidates(np.array([0, 2], np.int32), np.array([1], np.int32)))
        rejects([1, 2], [-1, 0], [0], Candidates(np.array([1, 2], np.int32), np.array([1, 2], np.int32)))
        rejects([1, 2], [-1])
        rejects([1, 2], [-1, 0, 1])
        rejects([1, 2], [-1, 0], of=[sequence])
        rejects([1, 2], [-1, 0], [0, 1], None, [True])

        parents = [kept_parent(mine), kept_parent(foreign), -1]
        twin.step(TreeBatch.of([5, 6, 7], [sequence, other, sequence], parents, range(3)))


@_in(CHECKS)
def wrong_commits(subject: Subject) -> None:
    """A path must start at the prefix's end and leave out nothing; nothing of a wrong one is committed."""
    with Twin(subject) as twin:
        sequence, other = twin.open(), twin.open()
        nodes = twin.step(TreeBatch.of([1, 2, 3, 4], [sequence] * 3 + [other], [-1, 0, 0, -1]))
        for path in ([1], [0, 3], [3], [0, 1, 2], [1, 0], [0, 0], [2, 1]):
            twin.rejects_commit(sequence, [nodes[i] for i in path])
        twin.rejects_commit(sequence, [nodes[0], 987_654])
        twin.commit(sequence, [nodes[0], nodes[2]])
        twin.commit(other, [nodes[3]])
        twin.step(TreeBatch.of([5, 6], [sequence, other], [-1, -1], [0, 1]))


@_in(CHECKS)
def wrong_lives(subject: Subject) -> None:
    """Keep and release take all of their nodes or none."""
    with Twin(subject) as twin:
        sequence = twin.open()
        (dead,) = twin.chain(sequence, [9])
        nodes = twin.chain(sequence, [1, 2, 3])
        twin.rejects_release(nodes[:1])
        twin.keep(nodes[:1])
        twin.rejects_keep([nodes[1], dead])
        twin.rejects_release([nodes[0], dead])
        twin.rejects_release([nodes[0], nodes[2]])
        twin.step(TreeBatch.of([4], sequence, [kept_parent(nodes[0])], [0]))
        twin.rejects_keep([nodes[1]])


@_in(CHECKS)
def wrong_sequences(subject: Subject) -> None:
    with Twin(subject) as twin:
        sequence, closed = twin.open(), twin.open()
        twin.feed(sequence, [1, 2, 3])
        twin.rejects_open(sequence, 4)
        twin.rejects_open(sequence, -1)
        twin.close(closed)
        twin.rejects_closed(closed)
        twin.open()
        twin.rejects_closed(closed)


@_in(CHECKS)
def size_limits(subject: Subject) -> None:
    """Nodes a step, and tokens of prefix plus path, up to the limit and not one more."""
    with Twin(subject, max_nodes=32) as twin:
        sequence = twin.open()
        twin.step(tree_of(40, 32, sequence))
        twin.rejects_step(tree_of(40, 33, sequence))
        longest = subject.checkpoint.config.context_length
        twin.feed(sequence, tokens_of(41, longest - 3), chunk=32)
        nodes = twin.chain(sequence, [1, 2])
        twin.keep(nodes)
        twin.rejects_step(TreeBatch.of([3, 4], sequence, [kept_parent(nodes[1]), 0]))
        twin.step(TreeBatch.of([3, 4], sequence, [kept_parent(nodes[1]), kept_parent(nodes[1])], [0, 1]))
        twin.rejects_step(TreeBatch.chain([1, 2, 3, 4], sequence))
        twin.commit(sequence, nodes)
        twin.chain(sequence, [5])


@_in(CHECKS)
def random_calls(subject: Subject) -> None:
    """Right and wrong calls in random order; slots are scarce where they can be counted."""
    slots = 32 if subject.exact_slots else 4096
    for seed in range(4):
        with Twin(subject, slots=slots, max_nodes=24) as twin:
            make_random_calls(twin, seed, 120)


# Slots.


@_in(SLOT_CHECKS)
def slots_are_counted(subject: Subject) -> None:
    """Twin compares `free_slots` after every call; here are the figures themselves."""
    with Twin(subject, slots=64) as twin:
        free = twin.engine.free_slots
        assert free() == 64
        sequence = twin.open()
        twin.feed(sequence, tokens_of(50, 10))
        assert free() == 54
        nodes = twin.step(TreeBatch.of([1, 2, 3, 4], sequence, [-1, 0, 1, -1]))
        assert free() == 54
        twin.keep(nodes[2:])
        assert free() == 50
        twin.release(nodes[3:])
        assert free() == 51
        twin.commit(sequence, nodes[:1])
        assert free() == 51
        shared = twin.open(sequence, 6)
        assert free() == 51
        twin.close(sequence)
        assert free() == 58
        twin.close(shared)
        assert free() == 64


@_in(SLOT_CHECKS)
def out_of_slots(subject: Subject) -> None:
    """A step fits exactly or not at all, and one that does not fit changes nothing."""
    with Twin(subject, slots=40) as twin:
        sequence, other = twin.open(), twin.open()
        twin.feed(sequence, tokens_of(51, 20))
        nodes = twin.step(tree_of(52, 8, sequence))
        twin.keep(nodes)
        twin.rejects_step(tree_of(53, 13, other), OutOfSlots)
        twin.step(tree_of(53, 12, other))
        twin.step(tree_of(54, 12, sequence))
        twin.rejects_step(TreeBatch.of([1] * 13, sequence, [kept_parent(nodes[0])] * 13), OutOfSlots)
        twin.release(nodes[3:])
        twin.step(TreeBatch.of([1, 2], sequence, [kept_parent(nodes[2]), -1], [0, 1]))
        twin.close(sequence)
        twin.step(tree_of(55, 40, other))


# The same bits.


@_in(INVARIANCE_CHECKS)
def same_bits_in_any_company(subject: Subject) -> None:
    """Every node of several trees: alone, with its ancestors only, and in batches of many sizes."""
    seen: dict[tuple[int, ...], np.ndarray] = {}
    with Twin(subject, bits=True, seen=seen) as twin:
        prefixes = [tokens_of(60 + i, length) for i, length in enumerate((0, 5, 18))]
        sequences = [twin.open() for _ in prefixes]
        for sequence, prefix in zip(sequences, prefixes, strict=True):
            twin.feed(sequence, prefix)
        trees = [tree_of(63 + i, 18, sequence) for i, sequence in enumerate(sequences)]
        for batch in trees:
            twin.step(batch)
        for batch in trees:
            for i in range(len(batch)):
                path = [i]
                while batch.parent[path[0]] >= 0:
                    path.insert(0, int(batch.parent[path[0]]))
                twin.chain(int(batch.sequence[0]), batch.tokens[path].tolist())
        rng = np.random.default_rng(66)
        for size in [*range(1, 18), 31, 32, 33, 54]:
            twin.step(_mixed(trees, size, rng))


def _mixed(trees: Sequence[TreeBatch], size: int, rng: np.random.Generator) -> TreeBatch:
    """The first nodes of several trees, shuffled together; only some rows wanted, in any order."""
    shares = rng.multinomial(size, [1 / len(trees)] * len(trees)).clip(max=[len(tree) for tree in trees])
    order = rng.permutation(np.repeat(np.arange(len(trees)), shares))
    place: list[list[int]] = [[] for _ in trees]
    tokens, sequence, parent = [], [], []
    for at, t in enumerate(order):
        batch, node = trees[t], len(place[t])
        tokens.append(int(batch.tokens[node]))
        sequence.append(int(batch.sequence[node]))
        above = int(batch.parent[node])
        parent.append(above if above < 0 else place[t][above])
        place[t].append(at)
    wanted = rng.permutation(len(order))[: int(rng.integers(1, len(order) + 1))]
    return TreeBatch.of(tokens, sequence, parent, wanted)


@_in(INVARIANCE_CHECKS)
def same_bits_however_fed(subject: Subject) -> None:
    """One path in one step, token by token, in chunks, over kept nodes, a shared prefix, and used slots."""
    tokens = tokens_of(70, 50)
    with Twin(subject, bits=True) as twin:
        twin.chain(twin.open(), tokens)
        for chunks in ([1] * 50, [7] * 7 + [1], [32, 18], [1, 48, 1], [16, 16, 16, 2]):
            sequence, at = twin.open(), 0
            for size in chunks:
                twin.commit(sequence, twin.chain(sequence, tokens[at : at + size]))
                at += size
            twin.chain(twin.open(sequence, 30), tokens[30:])
            twin.close(sequence)
        sequence = twin.open()
        (node,) = twin.chain(sequence, tokens[:1])
        for token in tokens[1:20]:
            twin.keep([node])
            noise = tree_of(token, 5, sequence)
            parents = [kept_parent(node), *(p if p < 0 else p + 1 for p in noise.parent)]
            (node, *_) = twin.step(TreeBatch.of([token, *noise.tokens], sequence, parents, [0]))


@_in(INVARIANCE_CHECKS)
def same_bits_with_any_candidates(subject: Subject) -> None:
    """Candidate rows are the full row's bits, however many ids are asked for, and so is the logsumexp."""
    rng = np.random.default_rng(71)
    vocabulary = subject.checkpoint.config.vocab_size
    with Twin(subject, bits=True) as twin:
        sequence = twin.open()
        twin.feed(sequence, tokens_of(72, 6))
        batch = tree_of(73, 10, sequence, logsumexp=True)
        output = twin.engine.step(twin.translated(batch))
        twin.step(batch)
        for size in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, vocabulary):
            wanted = Candidates.of([rng.integers(0, vocabulary, size) for _ in range(10)])
            twin.step(TreeBatch.of(batch.tokens, sequence, batch.parent, range(10), wanted))
            ragged = Candidates.of(
                [rng.integers(0, vocabulary, int(rng.integers(0, size + 1))) for _ in range(10)]
            )
            again = TreeBatch.of(batch.tokens, sequence, batch.parent, range(10), ragged, logsumexp=True)
            logsumexp = twin.engine.step(twin.translated(again)).logsumexp
            np.testing.assert_array_equal(logsumexp, output.logsumexp, strict=True)
            twin.step(again)


@_in(INVARIANCE_CHECKS)
def same_bits_with_any_threads(subject: Subject) -> None:
    seen: dict[tuple[int, ...], np.ndarray] = {}
    for threads in (1, 2, 3):
        with Twin(subject, threads=threads, bits=True, seen=seen) as twin:
            sequence, other = twin.open(), twin.open()
            twin.feed(sequence, tokens_of(74, 21))
            for size in (1, 2, 5, 16, 40):
                twin.step(tree_of(75, size, sequence))
            twin.chain(other, tokens_of(74, 21))
    assert len(seen) > 50


@_in(INVARIANCE_CHECKS)
def same_bits_in_random_calls(subject: Subject) -> None:
    """Paths over few tokens meet again and again, in other steps, slots and sequences."""
    seen: dict[tuple[int, ...], np.ndarray] = {}
    slots = 32 if subject.exact_slots else 4096
    for seed in range(4):
        with Twin(subject, slots=slots, max_nodes=24, threads=1 + seed % 2, bits=True, seen=seen) as twin:
            make_random_calls(twin, seed, 100, alphabet=2)
