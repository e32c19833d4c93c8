"""The training loop that teachers and students share: two learning rates, patience, best weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from degan_search.config import FitConfig

LR_FACTORS = (1.0, 0.1)


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


def fit(
    model: nn.Module,
    loss: Callable[[], Tensor],
    score: Callable[[], float],
    config: FitConfig,
    steps_per_epoch: int,
    stage: str,
) -> Iterator[Progress]:
    """Train a model in place, yielding its progress after each epoch; it ends with its best weights.

    Args:
        model: its train mode is on during steps and off while `score` runs.
        loss: computes the loss of the next batch.
        score: higher is better; chooses the weights that are kept.
        config: lengths, learning rate and patience. Each phase of `LR_FACTORS` begins with the best
            weights so far and a fresh Adam.
        steps_per_epoch: batches between two scores.
        stage: name in the progress.

    Raises:
        DivergedError: the loss is not finite.
    """
    best, best_score, done = copy.deepcopy(model.state_dict()), -math.inf, 0
    for phase, factor in enumerate(LR_FACTORS):
        model.load_state_dict(best)
        adam = torch.optim.Adam(
            model.parameters(), lr=config.lr * factor, betas=(config.beta1, config.beta2), fused=True
        )
        limit = _phase_limit(config, phase)
        waited = epochs = 0
        while done < limit and epochs < config.epochs and waited < config.patience:
            model.train()
            value = torch.zeros(())
            for _ in range(min(steps_per_epoch, limit - done)):
                adam.zero_grad()
                value = loss()
                value.backward()  # type: ignore[no-untyped-call]
                adam.step()
                done += 1
            if not math.isfinite(last := float(value.detach())):
                raise DivergedError(f"{stage}: loss is {last} at step {done}")
            model.eval()
            epochs += 1
            waited += 1
            if (now := score()) > best_score:
                best, best_score, waited = copy.deepcopy(model.state_dict()), now, 0
            yield Progress(stage, done, config.steps, best_score, last)
    model.load_state_dict(best)
    model.eval()


def _phase_limit(config: FitConfig, phase: int) -> int:
    if config.steps is None:
        return 2**62
    return config.steps if phase else max(1, round(config.steps * config.first_phase))
