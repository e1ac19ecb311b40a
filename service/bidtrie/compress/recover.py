"""Distillation: a compressed model is trained to predict what the dense model predicts, in the form it is stored in.

The loss is the Kullback-Leibler divergence of the student's next-token distribution from the dense model's, a token of
calibration text. Trained are the layers' compressed linears (see `trainable.py`) and every norm and bias; embedding and
head stay as they are. Every sixteenth sequence is held out: what does no better on them in the end is given up.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.compress.trainable import TrainableLinear
from bidtrie.compress.work_folder import WorkFolder
from bidtrie.errors import BidtrieError, InvalidInput
from bidtrie.models import tensor as plain
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupTensor
from bidtrie.models.layout import is_head

_WARM_UP = 0.1
_LARGEST_GRADIENT = 1.0
_STORE_EVERY = 25
_HELD_OUT_EVERY = 16


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long and how fast.

    steps: optimizer steps (AdamW without decay); 0: none.
    rate: how far a step moves a number at most, relative to the root mean square of its tensor, at its height.
    batch: sequences a step.
    seed: of the order in which the text comes.
    """

    steps: int = 0
    rate: float = 1e-4
    batch: int = 4
    seed: int = 0


class Recoverer:
    """Trains the compressed model of a checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tensors: Mapping[str, GroupTensor],
        sequences: NDArray[np.int64],
        recovery: Recovery,
        work: WorkFolder | None = None,
        stage: str = "recovered",
        teacher: Checkpoint | None = None,
    ) -> None:
        """tensors: the compressed linears by module; work: where the state is kept, under `stage`, and taken from.

        teacher: the dense model, if `checkpoint`, whose linears the tensors stand for, is not it.
        """
        self._checkpoint = checkpoint
        self._recovery = recovery
        if len(sequences) < 2:
            raise InvalidInput.of(
                "--sequences", f"{len(sequences)}, expected 2 or more: one is held out by --recover-steps"
            )
        held_out = np.arange(len(sequences)) % _HELD_OUT_EVERY == 0
        self._held_out, self._sequences = sequences[held_out], sequences[~held_out]
        self._start = dict(tensors)
        self._work, self._file = work, f"{stage}.pt"
        self._teacher = Llama(checkpoint if teacher is None else teacher)
        weights = torch_weights(checkpoint)
        self._linears: dict[str, TrainableLinear] = {}
        self._fixed = {name: each for name, each in tensors.items() if is_head(name)}
        for name, each in tensors.items():
            if name in self._fixed:
                weights[f"{name}.weight"] = torch.from_numpy(each.dequantize())
            else:
                self._linears[name] = TrainableLinear(each, weights.pop(f"{name}.weight").numpy())
        self._vectors = {name: each.requires_grad_() for name, each in weights.items() if each.dim() == 1}
        self._student = Llama(checkpoint, weights)
        self._trained = {
            **{
                f"{name}.{part}": each
                for name, linear in self._linears.items()
                for part, each in linear.parameters().items()
            },
            **self._vectors,
        }
        groups = [{"params": [each], "reach": _root_mean_square(each)} for each in self._trained.values()]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self.before = self.after = math.nan
        self._resume()

    def run(self) -> Iterator[float]:
        """The loss in nats a token, before every step that is still to be made.

        Afterwards `before` and `after` are the losses on what is held out.
        """
        if math.isnan(self.before):
            self.before = self._judge()
        while self.step < self._recovery.steps:
            loss = self._loss(self._tokens())
            loss.backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            if not math.isfinite(value):
                raise BidtrieError(
                    f"recovery step {self.step}: the loss is {value}; try a smaller --recover-rate"
                )
            torch.nn.utils.clip_grad_norm_(self._trained.values(), _LARGEST_GRADIENT)
            rate = self._recovery.rate * _share(self.step, self._recovery.steps)
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["reach"]
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % _STORE_EVERY == 0 or self.step == self._recovery.steps:
                self._store()
            yield value
        self.after = self._judge()

    @property
    def given_up(self) -> bool:
        """Whether what was learned does not help with what is held out."""
        return not self.after < self.before

    def tensors(self) -> dict[str, GroupTensor]:
        """The compressed linears after the run."""
        if self.given_up:
            return self._start
        return {**self._fixed, **{name: linear.tensor() for name, linear in self._linears.items()}}

    def checkpoint(self) -> Checkpoint:
        """The checkpoint with its norms and biases after the run."""
        if self.given_up:
            return self._checkpoint
        vectors = {
            name: plain.Tensor("float32", tuple(each.shape), each.detach().numpy().copy())
            for name, each in self._vectors.items()
        }
        return replace(self._checkpoint, tensors={**self._checkpoint.tensors, **vectors})

    def _tokens(self) -> Tensor:
        """The step's sequences: every one comes once before any comes again."""
        batch, count = self._recovery.batch, len(self._sequences)
        rows = []
        for i in range(self.step * batch, (self.step + 1) * batch):
            order = np.random.default_rng((self._recovery.seed, i // count)).permutation(count)
            rows.append(order[i % count])
        return torch.from_numpy(self._sequences[rows])

    @torch.no_grad()
    def _judge(self) -> float:
        """Nats a token on what is held out."""
        batch = self._recovery.batch
        parts = torch.split(torch.from_numpy(self._held_out), batch)
        return sum(float(self._loss(part)) * len(part) for part in parts) / len(self._held_out)

    def _loss(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = functional.log_softmax(self._teacher.forward(tokens), dim=-1)
        for name, linear in self._linears.items():
            self._student.weights[f"{name}.weight"] = linear.weight()
        found = functional.log_softmax(self._student.forward(tokens), dim=-1)
        return functional.kl_div(found, wanted, reduction="sum", log_target=True) / tokens.numel()

    def _store(self) -> None:
        if self._work is not None:
            state = {
                "step": self.step,
                "before": self.before,
                "trained": {name: each.detach() for name, each in self._trained.items()},
                "optimizer": self._optimizer.state_dict(),
            }
            self._work.write(self._file, lambda path: torch.save(state, path))

    def _resume(self) -> None:
        if self._work is None or not (path := self._work.path / self._file).exists():
            return
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise BidtrieError(f"{path}: is damaged ({error}); remove {path.parent} to begin anew") from None
        with torch.no_grad():
            for name, each in self._trained.items():
                each.copy_(state["trained"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.before = state["step"], state["before"]


def _root_mean_square(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def _share(done: int, total: int) -> float:
    """Of the rate's height: up linearly, then down along a cosine to 0."""
    progress = (done + 1) / (total + 1)
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - _WARM_UP) / (1.0 - _WARM_UP)))
