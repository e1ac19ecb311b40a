"""The training loop: one pack a step, AdamW, looks at held-out pairs, and a state that a killed run goes on from."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bidtrie.errors import BidtrieError, InvalidInput
from bidtrie.tune.epoch import Epochs
from bidtrie.tune.loss import trie_loss, word_loss
from bidtrie.tune.packing import Pack
from bidtrie.tune.recipe import Recipe

_WARM_UP = 0.05
_LEAST_RATE = 0.1
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True)
class Losses:
    """Nats: of targeting a page (trie-normalised), of creatives a token; NaN where there are no such pairs."""

    targeting: float
    creative: float


@dataclass(slots=True)
class Look:
    """What was seen at a look at the held-out pairs."""

    step: int
    training: float
    held_out: Losses


@dataclass(slots=True)
class State:
    """Where a run is. All that a resumed run needs, besides the pairs and the recipe."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    looks: list[Look] = field(default_factory=list)
    since_best: int = 0
    running: float = 0.0
    running_steps: int = 0


class Trainer:
    """Tunes the weights of `model` that require gradients."""

    def __init__(
        self, model: Any, recipe: Recipe, training: Epochs, held_out: Epochs, work: Path, identity: str
    ) -> None:
        """work: the folder of the run's state; identity: what has to be the same for a state to be taken up."""
        self.model = model
        self.recipe = recipe
        self.state = State()
        self._training = training
        self._held_out = held_out.held_out()
        self._file = work / "state.pt"
        self._identity = identity
        self._learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._first = self._best = self._weights()
        self._optimizer = torch.optim.AdamW(
            self._learning.values(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
        )
        self._steps_an_epoch = len(training.training(recipe.seed, 0, recipe.shares))
        if not self._steps_an_epoch:
            raise InvalidInput.of("--pairs", "hold nothing to learn from")

    @property
    def total_steps(self) -> int:
        """Steps of the whole run, if it does not end early. Packs of later epochs may be a few more or less."""
        return self._steps_an_epoch * self.recipe.epochs

    def resume(self) -> bool:
        """Go on where a run that was killed had stored its state; False if there is none."""
        if not self._file.exists():
            return False
        try:
            stored = torch.load(self._file, weights_only=True)
        except Exception as error:
            raise BidtrieError(
                f"{self._file}: is damaged ({error}); remove {self._file.parent} to begin anew"
            ) from None
        if stored["identity"] != self._identity:
            raise BidtrieError(
                f"{self._file}: is of a run with other pairs, settings or another model; remove {self._file.parent} "
                "to begin anew, or give another --out"
            )
        self._restore(stored["weights"])
        self._best = stored["best"]
        self._optimizer.load_state_dict(stored["optimizer"])
        looks = [Look(step, training, Losses(*held_out)) for step, training, held_out in stored["looks"]]
        self.state = State(**stored["state"], looks=looks)
        return True

    def run(self, store_every: int = 50) -> Iterator[State]:
        """Yields the state after every step. At the end the model has the best weights that were seen."""
        state = self.state
        done = 0
        for epoch in range(self.recipe.epochs):
            packs = self._training.training(self.recipe.seed, epoch, self.recipe.shares)
            for each in packs:
                done += 1
                if done <= state.step:
                    continue
                if state.since_best >= self.recipe.patience:
                    break
                self._step(each)
                if state.step % self.recipe.evaluate_every == 0:
                    self._look()
                if state.step % store_every == 0:
                    self._store()
                yield state
        if state.running_steps:
            self._look()
        self.recall()
        self._store()

    def _step(self, each: Pack) -> None:
        state = self.state
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * _rate(state.step / max(1, self.total_steps))
        self.model.train()
        loss = self._loss(each)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._learning.values(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(value := float(loss.detach())):
            raise BidtrieError(f"step {state.step}: the loss is {value}; try a smaller --learning-rate")
        state.step += 1
        state.running += value
        state.running_steps += 1

    def _loss(self, each: Pack) -> torch.Tensor:
        recipe = self.recipe
        hidden, head = self._hidden(each)
        if each.choices:
            loss = trie_loss(hidden, head, each.choices, recipe.label_smoothing) / each.examples
            if recipe.likelihood_weight:
                words = word_loss(hidden, head, each.word_rows, each.words)
                loss = loss + recipe.likelihood_weight * words / len(each.words)
            return loss
        return recipe.creative_weight * word_loss(hidden, head, each.word_rows, each.words) / len(each.words)

    def _hidden(self, each: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [n, d] after the final norm, and the head [vocabulary, d]."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        kind = torch.bfloat16 if self.recipe.bfloat16 else torch.float32
        device = next(iter(self._learning.values())).device
        visible = torch.from_numpy(each.visible).to(device)
        mask = torch.zeros(visible.shape, dtype=kind, device=device).masked_fill(
            ~visible, torch.finfo(kind).min
        )
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.recipe.bfloat16):
            hidden = model.model(
                input_ids=torch.from_numpy(each.tokens)[None].to(device),
                position_ids=torch.from_numpy(each.positions)[None].to(device),
                attention_mask=mask[None, None],
                use_cache=False,
            ).last_hidden_state[0]
        return hidden, model.get_output_embeddings().weight

    @torch.no_grad()
    def held_out(self) -> Losses:
        """The losses on the held-out pairs, nothing smoothed and nothing left out."""
        self.model.eval()
        nats, counts = [0.0, 0.0], [0, 0]
        for each in self._held_out:
            hidden, head = self._hidden(each)
            kind = 0 if each.choices else 1
            if kind == 0:
                nats[0] += float(trie_loss(hidden, head, each.choices))
                counts[0] += each.examples
            else:
                nats[1] += float(word_loss(hidden, head, each.word_rows, each.words))
                counts[1] += len(each.words)
        means = [total / count if count else math.nan for total, count in zip(nats, counts, strict=True)]
        return Losses(*means)

    def forget(self) -> None:
        """Back to the weights that the run began with."""
        self._restore(self._first)

    def recall(self) -> None:
        """The best weights that were seen."""
        self._restore(self._best)

    def _look(self) -> None:
        state, seen = self.state, self.held_out()
        state.looks.append(Look(state.step, state.running / max(1, state.running_steps), seen))
        state.running, state.running_steps = 0.0, 0
        # What the recipe weighs in training it weighs here; kinds that are absent do not count.
        weighed = [
            weight * value
            for weight, value in ((1.0, seen.targeting), (self.recipe.creative_weight, seen.creative))
            if not math.isnan(value)
        ]
        score = sum(weighed)
        # With nothing to judge by, the latest weights are the ones to keep.
        if score < state.best or not weighed:
            state.best, state.best_step, state.since_best = score, state.step, 0
            self._best = self._weights()
        else:
            state.since_best += 1

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: each.detach().clone() for name, each in self._learning.items()}

    def _restore(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, each in self._learning.items():
                each.copy_(weights[name])

    def _store(self) -> None:
        """Whole or not at all: a run that is killed while it writes keeps the state before."""
        state = self.state
        plain = {
            name: getattr(state, name)
            for name in ("step", "best", "best_step", "since_best", "running", "running_steps")
        }
        looks = [
            (look.step, look.training, (look.held_out.targeting, look.held_out.creative))
            for look in state.looks
        ]
        fresh = self._file.with_suffix(".tmp")
        with fresh.open("wb") as file:
            torch.save(
                {
                    "identity": self._identity,
                    "weights": self._weights(),
                    "best": self._best,
                    "optimizer": self._optimizer.state_dict(),
                    "state": plain,
                    "looks": looks,
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)


def _rate(done: float) -> float:
    """The learning rate's share of its height: up linearly, then down along a cosine to a tenth."""
    if done < _WARM_UP:
        return max(done / _WARM_UP, 1e-3)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - _WARM_UP) / (1.0 - _WARM_UP))))
    return _LEAST_RATE + (1.0 - _LEAST_RATE) * cosine
