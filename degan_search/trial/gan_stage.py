"""The GAN of a trial: its training, and at each rung a short distillation that scores the generator so far."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from degan_search.data.images import denormalise
from degan_search.networks.batch_statistics import statistics_distance
from degan_search.settings.lengths import probe_config
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import DistillConfig
from degan_search.stages import gan
from degan_search.stages.balance import BalancedSource
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan_training import GanProgress, GanTraining
from degan_search.stages.image_sources import GeneratorSource, ImageSource
from degan_search.training.loop import Progress
from degan_search.training.measures import coverage, effective_classes, mean_entropy
from degan_search.training.resumable import snapshot
from degan_search.trial.context import TrialContext

SAMPLES = 64
"""Images that a trial leaves as samples."""
STATISTICS_IMAGES = 1024
"""Images that the statistics of a generator are measured on."""


class GanStage:
    """The GAN's training, interrupted by a probe at each rung (`probe.at`).

    A probe distils a fresh student from the generator, and before the first step from the proxy images themselves. Its
    own random streams leave the GAN's training untouched.
    """

    def __init__(self, trial: TrialContext) -> None:
        """Begin with an untrained GAN."""
        self.trial = trial
        self.gan = _untrained(trial)
        self.rungs = trial.config.probe.at
        proxy, set_images = trial.shared.proxy_of(trial.image_shape[1]), trial.inputs.proxy.set_images
        self.training = GanTraining(self.gan, proxy, set_images, trial.context, self.rungs)
        self.reached: GanProgress | None = None
        """The last step that was reported."""
        self.probe: Distillation | None = None
        """The probe of that step, while it runs."""
        self.metrics: dict[str, float] = {}
        """The losses and the generator's statistics at the end."""
        self.early: dict[str, Tensor] | None = None
        """The generator's state after half of the steps, where generators are combined."""
        self.combines = trial.method.tuned and trial.config.task == "distillation"

    @property
    def generator(self) -> nn.Module:
        """The network that is trained."""
        return self.gan.generator

    @property
    def first_key(self) -> str:
        """The settings that decide a probe before the first step: all but the GAN's, and what a method makes of it."""
        return stable_hash(self.trial.config.model_dump(mode="json", exclude={"gan", "method"}))

    @property
    def steps_reported(self) -> int:
        """Steps of the GAN up to the last report."""
        return self.reached.step if self.reached else 0

    @property
    def done(self) -> bool:
        """Whether the GAN is trained, and probed if its last step is a rung."""
        return self.training.done and self.probe is None

    def step(self) -> Progress | None:
        """Do a step of the probe if there is one, else of the GAN; returns the progress, if there is any.

        Raises:
            DivergedError: a loss is not finite, or the generator makes one image only.
        """
        if self.probe is None:
            reached = self._train()
            if reached is None:
                return None
            self.reached = reached
            if reached.step == 0 and (known := self.trial.shared.first_scores.get(self.first_key)) is not None:
                return self._progress(reached, known)
            if reached.step in self.rungs:
                self.probe = self._begin_probe(reached.step)
                return None
            return self._progress(reached)
        if not self.probe.done:
            return self.probe.step()
        score = self.trial.compare(self.probe.student).measures["score"]
        self.probe = None
        assert self.reached is not None, "there is a probe at a reported step alone"
        if self.reached.step == 0:
            self.trial.shared.first_scores[self.first_key] = score
        return self._progress(self.reached, score)

    def state_dict(self) -> dict[str, Any]:
        """Return the training's state, and the probe's if there is one."""
        return {
            "training": self.training.state_dict(),
            "reached": None if self.reached is None else asdict(self.reached),
            "probe": None if self.probe is None else self.probe.state_dict(),
            "metrics": self.metrics,
            "early": self.early,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.training.load_state_dict(state["training"])
        self.reached = None if state["reached"] is None else GanProgress(**state["reached"])
        self.probe = None
        if state["probe"] is not None:
            self.probe = self._begin_probe(self.steps_reported)
            self.probe.load_state_dict(state["probe"])
        self.metrics, self.early = state["metrics"], state["early"]

    def _train(self) -> GanProgress | None:
        """Do a step of the GAN, but none before a probe at 0; returns the progress, if there is any."""
        if self.reached is None and 0 in self.rungs:
            return GanProgress(0, self.training.steps, {}, math.nan)
        reached = self.training.step()
        if self.training.steps_done == self.training.steps // 2 and self.combines:
            self.early = snapshot(self.generator.state_dict())
        return reached

    def _begin_probe(self, step: int) -> Distillation:
        """Return a short distillation from the generator so far, at 0 from the proxy images."""
        name, settings = f"probe at {step}", probe_config(self.trial.config)
        student = self.trial.untrained_student(name)
        source = generated(self.trial, self.generator, settings) if step else self._proxy_images(settings)
        return Distillation(student, source, settings, self.trial.context, name)

    def _proxy_images(self, config: DistillConfig) -> ImageSource:
        shared = self.trial.shared
        train, held_out = shared.proxy_parts()
        batch = min(config.batch_size, len(train))
        return ImageSource(train, held_out, self.trial.teacher, batch, config, shared.proxy_logits)

    def _progress(self, reached: GanProgress, score: float | None = None) -> Progress:
        """Return the progress of a step of the GAN, after which the generator may have been probed."""
        losses = dict(reached.losses)
        if self.training.done or (score is not None and reached.step):
            losses |= statistics(self.trial, self.generator)
        if self.training.done:
            self.metrics = dict(losses)
        if score is not None:
            losses["score"] = score
        rung_score = losses.get("score", math.nan)
        return Progress("gan", reached.step, reached.of, rung_score, losses.get("g_loss", math.nan), losses)


def generated(trial: TrialContext, generator: nn.Module, config: DistillConfig) -> GeneratorSource:
    """Return the source of a generator's images."""
    kind = BalancedSource if trial.config.combine.balance else GeneratorSource
    return kind(generator, trial.config.gan.latent, trial.fast_teacher, config, trial.context.precision)


def statistics(trial: TrialContext, generator: nn.Module) -> dict[str, float]:
    """Describe the generated images, for analysis only: the losses optimise these, so nothing is chosen by them."""
    source = GeneratorSource(generator, trial.config.gan.latent, trial.teacher)
    images, logits = source.make(STATISTICS_IMAGES, trial.context.generator("statistics"))
    return {
        "effective_classes": effective_classes(logits),
        "coverage": coverage(logits),
        "mean_entropy": mean_entropy(logits),
        "bn_distance": statistics_distance(trial.teacher, images),
    }


def samples(trial: TrialContext, generator: nn.Module) -> Tensor:
    """Return images of the generator as bytes, on the CPU: always from the same noise."""
    source = GeneratorSource(generator, trial.config.gan.latent, trial.teacher)
    return denormalise(source.make(SAMPLES, trial.context.generator("samples"))[0]).cpu()


def _untrained(trial: TrialContext) -> gan.Gan:
    config, student = trial.config, None
    if config.gan.lambda_s:
        student = trial.untrained_student("rival"), config.distill
    return gan.build(
        config.gan,
        trial.image_shape,
        trial.fast_teacher,
        trial.context,
        trial.method.adversarial,
        student,
    )
