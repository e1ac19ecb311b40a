"""What steps a kind of job is expected to take, learned from those that ended."""

from collections.abc import Hashable

from bidtrie.scheduling.step_shape import StepShape

_RATE = 0.1
_MOST_STEPS = 64
#: Steps after the first of a job of which nothing is known.
UNKNOWN_LATER = 4
#: Steps that fewer jobs than this share of them take are not expected.
_LIKELY = 0.4


class _Steps:
    """Running means over jobs, step by step: how many take the step, and its shape where they do."""

    def __init__(self) -> None:
        self.jobs = 0
        self.alive: list[float] = []
        self.shapes: list[list[float]] = []

    def learn(self, shapes: list[StepShape]) -> None:
        shapes = shapes[:_MOST_STEPS]
        while len(self.alive) < len(shapes):
            self.alive.append(0.0 if self.jobs else 1.0)
            self.shapes.append([float(value) for value in shapes[len(self.shapes)]])
        self.jobs += 1
        for i in range(len(self.alive)):
            taken = i < len(shapes)
            self.alive[i] += _RATE * (taken - self.alive[i])
            if taken:
                mean = self.shapes[i]
                for k, value in enumerate(shapes[i]):
                    mean[k] += _RATE * (value - mean[k])

    def expected(self) -> list[StepShape]:
        return [
            StepShape(*(round(value) for value in mean))
            for alive, mean in zip(self.alive, self.shapes, strict=True)
            if alive >= _LIKELY
        ]


class OutlineBook:
    """Outlines by kind of job. Learned on the engines' thread, asked from any."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, tuple[_Steps, tuple[StepShape, ...]]] = {}

    def expected(self, kind: Hashable, first: StepShape, later: int = UNKNOWN_LATER) -> tuple[StepShape, ...]:
        """`first` and the steps after it; of an unknown kind `later` steps of a quarter of the first."""
        known = self._kinds.get(kind)
        if known is None:
            return (first, *(StepShape(max(1, first.nodes // 4), first.context // 4, 1, 0, 1),) * later)
        return (first, *known[1])

    def learn(self, kind: Hashable, shapes: list[StepShape]) -> None:
        """Take in the steps after the first of a job that ended of itself."""
        steps = self._kinds[kind][0] if kind in self._kinds else _Steps()
        if not shapes:
            return
        steps.learn(shapes[1:])
        self._kinds[kind] = (steps, tuple(steps.expected()))
