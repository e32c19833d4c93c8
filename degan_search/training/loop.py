"""The training loop that teachers and students share: optimisers, learning rates, patience, best weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from degan_search.networks.layers import Dropout, dropouts
from degan_search.settings.trial import FitConfig
from degan_search.training.cuda_graph import Accelerate, accelerated

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LR_FACTORS = (1.0, 0.1)
ENDLESS = 2**62
"""A number of steps that no training reaches."""


class DivergedError(RuntimeError):
    """A loss or an image that is not finite, or a generator that makes one image only."""


@dataclass(frozen=True)
class Progress:
    """Where a stage stands: steps done, steps at most (None if patience alone decides), best score so far."""

    stage: str
    step: int
    of: int | None
    score: float
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    """What else was measured, by name."""


class Stage(Protocol[T_co]):
    """A part of a trial that is done step by step, and can be saved after any of them.

    A stage that is made anew from the same arguments, and loads what was saved, goes on with the same bits.
    """

    @property
    def done(self) -> bool:
        """Whether there is no step left."""

    def step(self) -> T_co | None:
        """Do the next step; returns what there is to report after it, if anything."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the stage needs to go on; tensors are those in use."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from a saved state, whose tensors may be used from now on."""


def progress_of(stage: Stage[T]) -> Iterator[T]:
    """Run a stage to its end, yielding what it reports."""
    while not stage.done:
        report = stage.step()
        if report is not None:
            yield report


class Fitting:
    """The training of a model, one step of its optimiser a call; it ends with its best weights, in eval mode.

    Training has phases, each with an optimiser of its own that starts from the best weights so far.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        score: Callable[[], float] | None,
        config: FitConfig,
        steps_per_epoch: int,
        name: str,
        draw: Callable[[], tuple[Tensor, ...]] = tuple,
        accelerate: Accelerate = "none",
    ) -> None:
        """Begin the first phase.

        Args:
            model: its train mode is on during steps and off while `score` runs. Parameters that require no
                gradient stay as they are.
            loss: computes the loss of the next batch, which is what `draw` gives, if anything.
            score: higher is better; chooses the weights that are kept. None: the last are kept.
            config: optimiser, lengths, learning rates and patience, see `FitConfig`.
            steps_per_epoch: batches between two scores.
            name: the stage's, in the progress.
            draw: returns the arguments of `loss`, the batch first. The caller saves its state, and that of `score`.
            accelerate: how a step is run (`cuda_graph.accelerated`), if the optimiser is `adam`: the other's learning
                rate changes from step to step. Dropout's noise is then drawn before the step.
        """
        self.model, self.loss, self.score, self.draw, self.name = model, loss, score, draw, name
        self.watch: Callable[[], dict[str, float]] = dict
        """Called after each epoch in eval mode; what it measures goes into the progress, and nothing looks at it."""
        self.steps_per_epoch = steps_per_epoch
        self.accelerate = accelerate if config.optimiser == "adam" else "none"
        self.noisy = dropouts(model) if self.accelerate != "none" else []
        self.phases = phases(config, steps_per_epoch)
        self.steps = 0
        self.best, self.best_score = copy.deepcopy(model.state_dict()), -math.inf
        self.done = False
        self._begin_phase(0)

    def step(self) -> Progress | None:
        """Take one step; after the last one of an epoch the model is scored, and the progress returned.

        Raises:
            DivergedError: the loss is not finite.
        """
        if self.steps_in_epoch == 0:
            self.model.train()
        batch = self.draw()
        noise = (layer.draw(len(batch[0]), batch[0].device, layer.rng) for layer in self.noisy)
        loss = self.run_step(*batch, *noise)
        self.schedule.step()
        self.steps += 1
        self.steps_in_epoch += 1
        if self.steps_in_epoch < self.steps_per_epoch and self.steps < self.phase.limit:
            return None
        return self._end_epoch(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the model, its best weights, the phase with its optimiser, and the counts; tensors are in use."""
        return {
            "phase": self.phase_index,
            "steps": self.steps,
            "steps_in_epoch": self.steps_in_epoch,
            "epochs": self.epochs,
            "epochs_without_better": self.epochs_without_better,
            "best_score": self.best_score,
            "best": self.best,
            "done": self.done,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._begin_phase(state["phase"])
        self.steps = state["steps"]
        self.steps_in_epoch = state["steps_in_epoch"]
        self.epochs = state["epochs"]
        self.epochs_without_better = state["epochs_without_better"]
        self.best_score = state["best_score"]
        self.best = state["best"]
        self.done = state["done"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.model.train(not self.done)

    def _begin_phase(self, index: int) -> None:
        """Begin a phase: from the best weights, with a new optimiser, and a new recording of the step."""
        self.phase_index, self.phase = index, self.phases[index]
        self.steps_in_epoch = self.epochs = self.epochs_without_better = 0
        self.model.load_state_dict(self.best)
        trained = [weights for weights in self.model.parameters() if weights.requires_grad]
        self.optimiser, self.schedule = self.phase.start(trained)
        step = _optimiser_step(self.optimiser, self.loss, self.noisy)
        self.run_step = accelerated(step, (self.model, self.optimiser), self.accelerate)

    def _end_epoch(self, loss: Tensor) -> Progress:
        """Score the model, keep its weights if they are the best, and end the phase if it has lasted long enough."""
        check_loss(last := float(loss), self.name, self.steps)
        self.model.eval()
        self.steps_in_epoch = 0
        self.epochs += 1
        self.epochs_without_better += 1
        if (found := self.score() if self.score else float(self.steps)) > self.best_score:
            self.best, self.best_score = copy.deepcopy(self.model.state_dict()), found
            self.epochs_without_better = 0
        progress = Progress(self.name, self.steps, steps_at_most(self.phases), self.best_score, last, self.watch())
        if not self.phase.lasts(self.steps, self.epochs, self.epochs_without_better):
            self._end_phase()
        return progress

    def _end_phase(self) -> None:
        """Begin the next phase that has steps left, or end the training with the best weights."""
        for index in range(self.phase_index + 1, len(self.phases)):
            if self.phases[index].lasts(self.steps, 0, 0):
                self._begin_phase(index)
                return
        for layer in self.noisy:
            layer.noise = None
        self.model.load_state_dict(self.best)
        self.model.eval()
        self.done = True


def _optimiser_step(stepper: Optimizer, loss: Callable[..., Tensor], noisy: list[Dropout]) -> Callable[..., Tensor]:
    """Return a step on a batch and the noise of these layers."""

    def step(*inputs: Tensor) -> Tensor:
        batch = inputs[: len(inputs) - len(noisy)]
        for layer, noise in zip(noisy, inputs[len(batch) :], strict=True):
            layer.noise = noise
        stepper.zero_grad()
        value = loss(*batch)
        value.backward()  # type: ignore[no-untyped-call]
        stepper.step()
        return value.detach()

    return step


def check_loss(loss: float, stage: str, step: int) -> None:
    """Refuse a loss that is not finite.

    Raises:
        DivergedError: says which.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"{stage}: loss is {loss} at step {step}")


def optimiser(config: FitConfig, parameters: Iterable[nn.Parameter], factor: float = 1.0) -> Optimizer:
    """Return the optimiser that the settings name, at `factor` times their learning rate."""
    lr, decay = config.lr * factor, config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=decay, fused=True)
    return torch.optim.Adam(parameters, lr=lr, betas=(config.beta1, config.beta2), weight_decay=decay, fused=True)


@dataclass(frozen=True)
class Phase:
    """A stretch of training: a fresh optimiser with its schedule, and how long it lasts."""

    start: Callable[[list[nn.Parameter]], tuple[Optimizer, LRScheduler]]
    factor: float
    """Of the learning rate."""
    limit: int
    """Steps of training at its end, at most."""
    epochs: int
    patience: float
    """Epochs without a better score."""

    def lasts(self, done: int, epochs: int, waited: int) -> bool:
        """Return whether it goes on, by steps of training, its own epochs and those of them without a better score."""
        return done < self.limit and epochs < self.epochs and waited < self.patience


def phases(config: FitConfig, steps_per_epoch: int) -> list[Phase]:
    """Return the phases of training that the settings ask for."""
    return _adam(config) if config.optimiser == "adam" else _sgd(config, steps_per_epoch)


def steps_at_most(stretches: list[Phase]) -> int | None:
    """Return the steps of all phases at most, or None where patience alone decides."""
    return stretches[-1].limit if stretches[-1].limit < ENDLESS else None


def _adam(config: FitConfig) -> list[Phase]:
    def start(parameters: list[nn.Parameter], factor: float) -> tuple[Optimizer, LRScheduler]:
        adam = optimiser(config, parameters, factor)
        return adam, LambdaLR(adam, lambda _: 1.0)

    first = ENDLESS if config.steps is None else max(1, round(config.steps * config.first_phase))
    limits = (first, config.steps or ENDLESS)
    return [
        Phase(partial(start, factor=factor), factor, limit, config.epochs, config.patience)
        for factor, limit in zip(LR_FACTORS, limits, strict=True)
    ]


def _sgd(config: FitConfig, steps_per_epoch: int) -> list[Phase]:
    steps = min(config.steps or ENDLESS, config.epochs * steps_per_epoch)

    def start(parameters: list[nn.Parameter]) -> tuple[Optimizer, LRScheduler]:
        sgd = optimiser(config, parameters)
        rising = round(config.warm_up * steps)

        def factor(step: int) -> float:
            passed = sum(step >= round(share * steps) for share in config.milestones)
            return min(1.0, (step + 1) / (rising + 1)) * config.lr_factor**passed

        return sgd, LambdaLR(sgd, factor)

    return [Phase(start, 1.0, steps, config.epochs, math.inf)]
