"""Floating-point operations of DeGAN's steps and of all of Table 2: counted, not timed.

An operation is a multiplication or an addition in a convolution or matrix product; nothing else is counted. Steps are
counted as the package does them, forward and backward, at a small batch: the count is proportional to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from degan_search.data import proxies
from degan_search.networks.frozen import freeze
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.settings import lengths
from degan_search.settings.methods import METHODS
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import DistillConfig, GanConfig, TrialConfig
from degan_search.stages.gan import build
from degan_search.stages.image_sources import CHUNK, GeneratorSource
from degan_search.training.context import Context
from degan_search.training.loop import LR_FACTORS
from degan_search.training.losses import distillation_loss

TABLE2 = Path(__file__).parents[1] / "search_spaces" / "table2_cifar10.yaml"
ROWS = ("proxy", "dcgan", "degan")
"""The paper's methods in Table 2."""
COUNTED = 2
"""Images at which a step is counted."""
FEWEST, MOST = 202, 10_000
"""Epochs of a distillation by the paper's patience: 101 at each learning rate, 5,000 at most."""


def operations(act: Callable[[], object]) -> int:
    """Return the operations of what `act` does, gradients included: two for each multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter:
        act()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Costs:
    """Operations for each image."""

    degan: float
    """A step of discriminator and generator, with the teacher."""
    dcgan: float
    """The same with both lambdas 0, which needs no teacher."""
    make: float
    """Generator and teacher without gradients: an image for the student, with the teacher's logits."""
    student_step: float
    student_forward: float
    teacher_step: float
    """Of the teacher's own training."""
    teacher_forward: float

    def distillation(self, pool_refresh: float) -> float:
        """Return those of a distillation step with `pool_refresh` new images for each that the student is given."""
        return self.student_step + pool_refresh * self.make


@cache
def costs(teacher: str = "alexnet", student: str = "alexnet_half", classes: int = 10, width: int = 64) -> Costs:
    """Count the steps of two networks of `CLASSIFIERS` at their own widths, and of a GAN of this width."""
    channels = CLASSIFIERS[teacher].channels
    taught, learner = build_classifier(teacher, classes), build_classifier(student, classes, channels=channels)
    frozen = freeze(taught)
    config = GanConfig(width=width, lambda_e=1.0, lambda_d=5.0)
    plain = config.model_copy(update={"lambda_e": 0.0, "lambda_d": 0.0})
    gans = [build(settings, (channels, 32, 32), frozen, Context(0)) for settings in (config, plain)]
    source = GeneratorSource(gans[0].generator, config.latent, frozen)
    images, z = torch.rand(COUNTED, channels, 32, 32), torch.randn(COUNTED, config.latent, 1, 1)
    steps: list[Callable[[], object]] = [
        *(lambda gan=gan: gan.step(images, z) for gan in gans),
        lambda: source.make(COUNTED, torch.Generator()),
        lambda: _learn(learner, images),
        lambda: _forward(learner, images),
        lambda: _learn(taught, images),
        lambda: _forward(frozen, images),
    ]
    return Costs(*(operations(step) / COUNTED for step in steps))


def _learn(model: nn.Module, images: Tensor) -> None:
    logits = model(images)
    distillation_loss(logits, torch.zeros_like(logits), 20.0).backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _forward(model: nn.Module, images: Tensor) -> None:
    model(images)


@dataclass(frozen=True)
class Work:
    """Images that go through steps of one kind."""

    part: str
    """`teacher`, `bank`, `search` or `finals`."""
    kind: str
    """`gan`, `student`, `teacher`, `images` (made for a student, or shown to the teacher) or `scoring`."""
    images: float
    batch: int
    each: float
    """Operations an image."""

    @property
    def total(self) -> float:
        """Operations of all images."""
        return self.images * self.each


def going_on(trials: int, rungs: int, factor: float) -> list[float]:
    """Return how many of a cell's trials are expected to train to the first rung, from there to the second, ...

    With asynchronous successive halving, if scores come in random order and those of one rung say nothing about the
    next: the first trial at a rung goes on, and each later one with probability 1 / factor.
    """
    left = [float(trials)]
    for _ in range(rungs):
        left.append(1 + (left[-1] - 1) / factor)
    return left


def table2(
    epochs: int,
    pool_refresh: float = 1.0,
    stopping: bool = True,
    rows: Sequence[str] = ROWS,
    cells: Sequence[str] | None = None,
) -> list[Work]:
    """Return the work of Table 2, search and finals, by `search_spaces/table2_cifar10.yaml`.

    Measures on the bank and statistics of generated classes are left out: they are far less than 1%. Every search
    trial is counted with the teacher, although those at lambdas (0, 0) need none.

    Args:
        epochs: of each distillation, both learning rates together, FEWEST to MOST; of the teacher's training too, of
            which 2,000 are the most.
        pool_refresh: new images made for each that a student is given.
        stopping: count what early stopping is expected to leave; else every trial to its end.
        rows: the table's methods.
        cells: proxies of the table; None: all.
    """
    space = yaml.safe_load(TABLE2.read_text())
    work = _teacher(TrialConfig(), epochs)
    for proxy in cells or space["cells"]["proxy"]:
        work += _bank(trial_config({"proxy": proxy}))
        for method in rows:
            config = trial_config({"proxy": proxy, "method": method})
            work += _finals(config, len(space["finals"]["seeds"]), epochs, pool_refresh)
            if METHODS[method].tuned:
                work += _search(config, space, epochs, pool_refresh, stopping)
    return work


def _teacher(config: TrialConfig, epochs: int, images: int = 50_000) -> list[Work]:
    fit, held_out = config.teacher.fit, config.teacher.holdout * images
    epochs = min(epochs, len(LR_FACTORS) * fit.epochs)
    return [
        Work("teacher", "teacher", epochs * (images - held_out), fit.batch_size, costs().teacher_step),
        Work("teacher", "scoring", epochs * held_out, CHUNK, costs().teacher_forward),
    ]


def _bank(config: TrialConfig) -> list[Work]:
    size, steps = lengths.gan_lengths(config.gan, *_sizes(config))
    weights = config.bank.generators
    return [Work("bank", "gan", steps * size, size, costs().degan if any(pair) else costs().dcgan) for pair in weights]


def _finals(config: TrialConfig, runs: int, epochs: int, pool_refresh: float) -> list[Work]:
    method = METHODS[config.method]
    if not method.generates:
        return _from_images(config, runs, epochs)
    size, steps = lengths.gan_lengths(config.gan, *_sizes(config))
    gan = Work("finals", "gan", runs * steps * size, size, costs().degan if method.tuned else costs().dcgan)
    return [gan, *_distilled("finals", config.distill, runs * epochs, pool_refresh)]


def _search(config: TrialConfig, space: dict[str, Any], epochs: int, pool_refresh: float, stopping: bool) -> list[Work]:
    (when,) = (rule for rule in space["when"] if config.method in rule["if"].get("method", ()) and "trial" in rule)
    probe = trial_config(when["trial"]).probe
    left = going_on(space["search"]["trials"], len(probe.at), space["asha"]["reduction_factor"] if stopping else 1.0)
    size, steps = lengths.gan_lengths(config.gan, *_sizes(config))
    work = [
        Work("search", "gan", trials * (end - start) * size, size, costs().degan)
        for trials, (start, end) in zip(left, pairwise((0, *probe.at, steps)), strict=True)
    ]
    # An epoch of a probe is all its steps, but each of the two learning rates ends one, and scores.
    probing = config.distill.model_copy(
        update={"batch_size": probe.batch_size, "steps_per_epoch": probe.steps // len(LR_FACTORS)}
    )
    work += _distilled("search", probing, sum(left[:-1]) * len(LR_FACTORS), pool_refresh)
    return work + _distilled("search", config.distill, left[-1] * epochs, pool_refresh)


def _distilled(part: str, config: DistillConfig, epochs: float, pool_refresh: float) -> list[Work]:
    """Return the work of so many epochs from a generator, a score after each."""
    assert config.steps_per_epoch, "the paper's epochs of generated images are of a stated length"
    learned, cost = epochs * config.steps_per_epoch * config.batch_size, costs()
    return [
        Work(part, "images", pool_refresh * learned, CHUNK, cost.make),
        Work(part, "student", learned, config.batch_size, cost.student_step),
        Work(part, "scoring", epochs * config.score_images, CHUNK, cost.make + cost.student_forward),
    ]


def _from_images(config: TrialConfig, runs: int, epochs: int) -> list[Work]:
    images, whole = _sizes(config)
    batch = lengths.scaled_batch(config.distill_images.batch_size, config.distill_images.batch_of, images, whole)
    held_out = config.teacher.holdout * images
    return [
        Work("finals", "images", runs * images, CHUNK, costs().teacher_forward),
        Work("finals", "student", runs * epochs * (images - held_out), batch, costs().student_step),
        Work("finals", "scoring", runs * epochs * held_out, CHUNK, costs().student_forward),
    ]


def _sizes(config: TrialConfig) -> tuple[int, int]:
    """Return the images of a trial's proxy, and those of its whole set; nothing is read."""
    whole = proxies.parent_size(config.proxy)
    return round(whole * proxies.share(config.proxy)), whole
