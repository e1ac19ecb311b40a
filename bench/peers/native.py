"""Our own engine, measured as the peers are; the only worker that runs in the product's environment."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from bidtrie.engine.native import NativeEngine
from bidtrie.engine.tree_batch import TreeBatch
from bidtrie.models.load import load_checkpoint

from bench.peers.worker import Measured, main, milliseconds

#: Children of each node of the trees that are measured.
_BRANCHES = 4


class Native(Measured):
    def __init__(self, model: str, form: str, threads: int) -> None:
        self._engine = NativeEngine(load_checkpoint(model), threads=threads)

    def about(self) -> dict[str, Any]:
        return {
            "weights": self._engine.spec.weights,
            "version": f"bidtrie {version('bidtrie')}",
            "settings": f"weights {self._engine.spec.weights}; on cached text: trees of {_BRANCHES} branches a node",
            "instruction_sets": self._engine.instruction_set,
        }

    def _chain(self, sequence: int, tokens: Sequence[int]) -> int:
        """Append tokens to a sequence; the likeliest token after them."""
        output = self._engine.step(TreeBatch.chain(tokens, sequence, last_logits=True))
        token = int(output.row(0).argmax())
        self._engine.commit(sequence, output.nodes)
        return token

    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        sequence = self._engine.open()
        tokens = [self._chain(sequence, text)]
        times = []

        def step() -> None:
            tokens.append(self._chain(sequence, tokens[-1:]))

        while len(tokens) < count:
            times.append(milliseconds(step))
        self._engine.close(sequence)
        return tokens, times

    def _tree(
        self, text: Sequence[int], more: Sequence[int], rows: Sequence[int], repeats: int
    ) -> list[float]:
        """Times of a tree on the cached text, with a greedy choice at each of the rows."""
        sequence = self._engine.open()
        self._chain(sequence, text)
        # The first nodes hang on the text's end, the others on the nodes before, breadth first.
        parents = [(node - _BRANCHES) // _BRANCHES if node >= _BRANCHES else -1 for node in range(len(more))]
        batch = TreeBatch.of(more, sequence, parents, rows)

        def step() -> None:
            output = self._engine.step(batch)
            for row in range(len(rows)):
                output.row(row).argmax()

        times = [milliseconds(step) for _ in range(repeats)]
        self._engine.close(sequence)
        return times

    def extend(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        return self._tree(text, more, [len(more) - 1], repeats)

    def extend_all_rows(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        return self._tree(text, more, range(len(more)), repeats)

    def prefill(self, text: Sequence[int], repeats: int) -> list[float]:
        times = []
        for _ in range(repeats):
            sequence = self._engine.open()
            times.append(milliseconds(lambda: self._chain(sequence, text)))  # noqa: B023 (called at once)
            self._engine.close(sequence)
        return times


if __name__ == "__main__":
    main(Native)
