"""How long a step will take, learned from the steps that were run.

The mean is `speed * base(shape)`. `base` is linear in a step's features, with a convex piecewise-linear term in the
nodes: a step is bound by memory while it is small and by arithmetic when it is large. The first row over the whole
vocabulary reads the whole head, further ones cost less. The coefficients are the non-negative least squares of
relative errors over exponentially weighted samples; calibration samples keep their weight, so that sizes that have not
been seen for long are not forgotten, and what always comes together in requests (nodes and context) is told apart.
`speed` follows within tens of steps what slows every step alike, such as another program on the machine. On top comes a
quantile of measured over predicted.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidtrie.scheduling.nnls import nnls
from bidtrie.scheduling.recent_quantile import RecentQuantile
from bidtrie.scheduling.step_shape import StepShape

Float64 = NDArray[np.float64]

#: Node counts at which the cost of one more node may rise.
KNOTS = (4, 8, 16, 64, 256, 1024)
#: One, nodes, nodes above each knot, context, any full row, full rows, candidate cells, jobs.
FEATURES = 2 + len(KNOTS) + 5
#: What an unknown engine is taken for before its first sample: seconds a step and a node.
UNKNOWN_STEP_S, UNKNOWN_NODE_S = 2e-3, 2.5e-4

_DECAY = 0.9995
_SPEED_RATE = 0.1
_FIT_EVERY = 8
#: A step that took this many times its prediction was held up by something else: it teaches the margin only.
_OUTLIER = 4.0
#: The window of the quantile, in steps, and the quantile.
_WINDOW, QUANTILE = 256, 0.95
_LEAST_SECONDS = 1e-6
#: A margin that is kept from one process to the next: larger ones are of a bad moment.
_MOST_MARGIN = 100.0
_RESTORED_WEIGHT = 100.0
#: Steps that a calibration sample counts for; about 2,000 steps are remembered.
_CALIBRATION_WEIGHT = 20.0


def features(shape: StepShape) -> Float64:
    """The features of a shape, float64 [FEATURES], scaled so that none dwarfs the others."""
    nodes = shape.nodes
    above = [max(0, nodes - knot) for knot in KNOTS]
    rest = (shape.context / 1000, shape.full_rows > 0, shape.full_rows, shape.cells / 100, shape.jobs)
    return np.array([1.0, nodes, *above, *rest])


class CostModel:
    """Predicts and learns step times of one engine. One thread learns; any thread may ask."""

    def __init__(self) -> None:
        self.samples = 0
        self.speed = 1.0
        self.margin = 1.5
        self._theta = np.zeros(FEATURES)
        self._theta[0], self._theta[1] = UNKNOWN_STEP_S, UNKNOWN_NODE_S
        self._gram, self._moment = np.zeros((FEATURES, FEATURES)), np.zeros(FEATURES)
        self._gram_kept, self._moment_kept = np.zeros((FEATURES, FEATURES)), np.zeros(FEATURES)
        self._ratios = RecentQuantile(_WINDOW, QUANTILE)
        self._coefficients: list[float] = self._theta.tolist()

    def mean(self, shape: StepShape) -> float:
        """Seconds that a step of this shape takes on average."""
        c = self._coefficients
        nodes = shape.nodes
        seconds = c[0] + c[1] * nodes
        for i, knot in enumerate(KNOTS):
            if nodes <= knot:
                break
            seconds += c[2 + i] * (nodes - knot)
        if shape.full_rows:
            seconds += c[-4] + c[-3] * shape.full_rows
        seconds += c[-5] * shape.context / 1000 + c[-2] * shape.cells / 100
        return self.speed * (seconds + c[-1] * shape.jobs)

    def safe(self, shape: StepShape) -> float:
        """Seconds within which all but few steps of this shape end."""
        return self.margin * self.mean(shape)

    def fixed(self) -> float:
        """Seconds of a step that do not depend on what is in it."""
        return self.speed * self._coefficients[0]

    def marginal(self, shape: StepShape) -> float:
        """Seconds that a job of this shape adds to a step that others pay for, on average."""
        return max(0.0, self.mean(shape) - self.fixed())

    def learn(self, shape: StepShape, seconds: float, *, calibration: bool = False) -> float:
        """Take in a step; returns measured over predicted mean, as it was predicted."""
        seconds = max(seconds, _LEAST_SECONDS)
        ratio = seconds / max(self.mean(shape), _LEAST_SECONDS)
        if calibration:
            row = features(shape) / seconds
            self._gram_kept += _CALIBRATION_WEIGHT * np.outer(row, row)
            self._moment_kept += _CALIBRATION_WEIGHT * row
            self.samples += 1
            self._fit()
            return ratio
        self._note(ratio)
        if ratio < _OUTLIER or not self.samples:
            # The share of the change that all steps have in common is the speed's, the rest is the features'.
            normalised = seconds / self.speed
            row = features(shape) / normalised
            self._gram *= _DECAY
            self._moment *= _DECAY
            self._gram += np.outer(row, row)
            self._moment += row
        self.speed *= min(max(ratio, 1 / _OUTLIER), _OUTLIER) ** _SPEED_RATE
        self.samples += 1
        if self.samples % _FIT_EVERY == 0 or self.samples < 2 * FEATURES:
            self._fit()
        return ratio

    def _note(self, ratio: float) -> None:
        self._ratios.note(ratio)
        seen = max(1.0, self._ratios.value())
        # Until there are enough to have seen the quantile, what is unknown counts as bad.
        self.margin = max(seen, 1.5) if len(self._ratios) < 20 else seen

    def _fit(self) -> None:
        theta = nnls(self._gram + self._gram_kept, self._moment + self._moment_kept)
        # Coefficients that are k times as large with a speed that is k times as small predict the same. Of all such
        # pairs the one is kept whose base fits the calibration: else steps come to contradict the calibration.
        squares = float(theta @ self._gram_kept @ theta)
        if squares > 0:
            k = float(self._moment_kept @ theta) / squares
            theta, self.speed = k * theta, self.speed / k
            self._gram, self._moment = self._gram / k**2, self._moment / k
        self._theta = theta
        self._coefficients = theta.tolist()

    def state(self) -> dict[str, Any]:
        """What another process may start from beside its own calibration, as JSON."""
        return {
            "knots": list(KNOTS),
            "coefficients": self._theta.tolist(),
            "gram": self._gram.tolist(),
            "moment": self._moment.tolist(),
            "speed": self.speed,
            "margin": min(self.margin, _MOST_MARGIN),
            "samples": self.samples,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Start from a saved state. Raises ValueError when it is not one, and has changed nothing then."""
        try:
            if tuple(state["knots"]) != KNOTS:
                raise ValueError(f"knots: expected {KNOTS}")
            theta = _finite(state["coefficients"], (FEATURES,))
            gram = _finite(state["gram"], (FEATURES, FEATURES))
            moment = _finite(state["moment"], (FEATURES,))
            scalars = _finite([state["speed"], state["margin"]], (2,))
            samples = int(state["samples"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not the state of a cost model: {error!r}") from error
        if (
            (theta < 0).any()
            or not theta.any()
            or not 0.01 <= scalars[0] <= 100
            or not 1 <= scalars[1] <= _MOST_MARGIN
        ):
            raise ValueError("not the state of a cost model: coefficients, speed or margin out of range")
        if samples < 0 or (np.diagonal(gram) < 0).any():
            raise ValueError("not the state of a cost model: samples or gram out of range")
        # Relative errors make each sample weigh about one: what was learned before is worth so many samples now.
        scale = min(1.0, _RESTORED_WEIGHT / max(float(theta @ gram @ theta), 1.0))
        self._theta, self._gram, self._moment = theta, scale * gram, scale * moment
        self._coefficients = theta.tolist()
        self.speed, self.margin = scalars.tolist()
        self.samples = samples


def _finite(values: Any, shape: tuple[int, ...]) -> Float64:
    array = np.array(values, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers of shape {shape}")
    return array
