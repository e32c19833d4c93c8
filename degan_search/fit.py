"""The training loop that teachers and students share: optimisers, learning rates, patience, best weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from degan_search.capture import Accelerate, accelerated
from degan_search.checkpoint import Parts, Values
from degan_search.config import FitConfig
from degan_search.networks.layers import Dropout, dropouts

T = TypeVar("T")
P = ParamSpec("P")
LR_FACTORS = (1.0, 0.1)
ENDLESS = 2**62


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


def reports(steps: Callable[P, Iterator[T | None]]) -> Callable[P, Iterator[T]]:
    """Return the function without its None: what it yields between two reports, so that others may take turns."""

    @wraps(steps)
    def only(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return (report for report in steps(*args, **kwargs) if report is not None)

    return only


def fit_steps(
    model: nn.Module,
    loss: Callable[..., Tensor],
    score: Callable[[], float] | None,
    config: FitConfig,
    steps_per_epoch: int,
    stage: str,
    parts: Parts | None = None,
    draw: Callable[[], tuple[Tensor, ...]] = tuple,
    accelerate: Accelerate = "none",
) -> Iterator[Progress | None]:
    """Train a model in place, yielding its progress after each epoch, else None; it ends with its best weights.

    Args:
        model: its train mode is on during steps and off while `score` runs. Parameters that require no
            gradient stay as they are.
        loss: computes the loss of the next batch, which is what `draw` gives, if anything.
        score: higher is better; chooses the weights that are kept. None: the last are kept.
        config: optimiser, lengths, learning rates and patience, see `FitConfig`.
        steps_per_epoch: batches between two scores.
        stage: name in the progress.
        parts: where what the loop needs to go on later is added; what the functions need is their maker's part.
        draw: gives what `loss` takes, the batch first.
        accelerate: how a step is run (`capture.accelerated`), if the optimiser is `adam`: the other's learning rate
            changes from step to step. Dropout's noise is then drawn before the step.

    Raises:
        DivergedError: the loss is not finite.
    """
    parts = parts or Parts()
    stretches = phases(config, steps_per_epoch)
    of = longest(stretches)
    now = Values(phase=0, done=0, epochs=0, waited=0, best=copy.deepcopy(model.state_dict()), best_score=-math.inf)
    parts.add("now", now)
    accelerate = accelerate if config.optimiser == "adam" else "none"
    noisy = dropouts(model) if accelerate != "none" else []
    for index in range(now.phase, len(stretches)):
        now.phase, phase = index, stretches[index]
        model.load_state_dict(now.best)
        stepper, schedule = phase.start([weights for weights in model.parameters() if weights.requires_grad])
        for name, part in (("model", model), ("optimiser", stepper), ("schedule", schedule)):
            parts.add(name, part)
        step = accelerated(_stepping(stepper, loss, noisy), (model, stepper), accelerate)
        while phase.lasts(now.done, now.epochs, now.waited):
            model.train()
            value = torch.zeros(())
            for _ in range(min(steps_per_epoch, phase.limit - now.done)):
                batch = draw()
                value = step(*batch, *(layer.draw(len(batch[0]), batch[0].device, layer.rng) for layer in noisy))
                schedule.step()
                now.done += 1
                yield None
            check(last := float(value), stage, now.done)
            model.eval()
            now.epochs += 1
            now.waited += 1
            if (found := score() if score else float(now.done)) > now.best_score:
                now.best, now.best_score, now.waited = copy.deepcopy(model.state_dict()), found, 0
            yield Progress(stage, now.done, of, now.best_score, last)
        now.epochs = now.waited = 0
    for layer in noisy:
        layer.noise = None
    model.load_state_dict(now.best)
    model.eval()


fit = reports(fit_steps)


def _stepping(stepper: Optimizer, loss: Callable[..., Tensor], noisy: list[Dropout]) -> Callable[..., Tensor]:
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


def check(loss: float, stage: str, step: int) -> None:
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


def longest(stretches: list[Phase]) -> int | None:
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
