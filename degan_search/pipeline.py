"""One trial, start to end: a pure function of its configuration and inputs. It knows nothing of Ray or of ledgers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from degan_search import bank as banks
from degan_search import degan, runtime
from degan_search import teacher as teachers
from degan_search.atomic import write_bytes
from degan_search.batchnorm import statistics_distance
from degan_search.checkpoint import tensors_bytes
from degan_search.config import DistillConfig, TrialConfig, stable_hash
from degan_search.data import proxies
from degan_search.data.images import denormalise, split, to_input
from degan_search.distill import distill
from degan_search.errors import UserError
from degan_search.fit import Progress
from degan_search.metrics import accuracy, coverage, effective_classes, mean_entropy, predict
from degan_search.networks.table import build_classifier
from degan_search.pictures import sample_grid
from degan_search.sources import GeneratorSource, ImageSource, Source

SAMPLES = 64
STATISTICS_IMAGES = 1024
HELD_OUT_OBJECTIVES = ("holdout_agreement", "infomax", "snd", "mcc")
"""Objectives that are measured on held-out proxy images alone."""


@dataclass(frozen=True)
class Method:
    """What a method distils from: a generator (whose weights may be tuned), or images."""

    images: str | None = None
    """`proxy` or `true`; None: a generator."""
    tuned: bool = False
    """Whether lambda_e and lambda_d count; else both are 0."""
    matched: bool = False
    """Images only: budgeted in steps like distillation from a generator, not as the released code does."""


METHODS: dict[str, Method] = {
    "degan": Method(tuned=True),
    "dcgan": Method(),
    "proxy": Method(images="proxy"),
    "proxy_matched": Method(images="proxy", matched=True),
    "true": Method(images="true"),
    "true_matched": Method(images="true", matched=True),
}


@dataclass(frozen=True, eq=False)
class Proxy:
    """Proxy images as the teacher takes them, and their 80/20 split."""

    images: banks.Images
    set_images: int
    """Images of the whole set, before class filtering."""
    train: np.ndarray
    held_out: np.ndarray
    """No student trains on these; a GAN does."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a trial is given: arrays that trials share, no file and no true label."""

    teacher: teachers.Teacher
    proxy: Proxy
    bank: banks.Images
    bank_proxy_images: int
    true_train: banks.Images | None = None
    true_held_out: banks.Images | None = None
    """True images, for the methods that distil from them."""
    oracle: tuple[banks.Images, np.ndarray] | None = None
    """Held-out true images and labels, for the objective `oracle_accuracy` alone."""


@dataclass(frozen=True)
class Event:
    """Something a trial reports: its stage, the step, and what was measured there, if anything."""

    stage: str
    step: int
    of: int | None
    seconds: float
    budget: int = 0
    """GAN steps done."""
    metrics: dict[str, float] = field(default_factory=dict)
    """With `score` (higher is better) at a rung and at the end."""


@dataclass
class Outcome:
    """A finished trial: its measures, the student, and where there is one the generator with samples."""

    metrics: dict[str, float]
    student: nn.Module
    generator: nn.Module | None = None
    samples: Tensor | None = None


def normalised(config: TrialConfig) -> TrialConfig:
    """Return the configuration with what its method does not use set to one value, so that equal trials hash equally.

    Raises:
        UserError: unknown method.
    """
    if config.method not in METHODS:
        raise UserError(f"method {config.method!r} is unknown; known: {', '.join(METHODS)}")
    if METHODS[config.method].tuned:
        return config
    return config.model_copy(update={"gan": config.gan.model_copy(update={"lambda_e": 0.0, "lambda_d": 0.0})})


def check(config: TrialConfig) -> None:
    """Refuse what can be seen to be wrong before anything is loaded.

    Raises:
        UserError: unknown method, network, data set, proxy or class; a student that takes other images.
    """
    normalised(config)
    if config.objective in HELD_OUT_OBJECTIVES and not config.bank.proxy_images:
        raise UserError(f"objective {config.objective!r} needs proxy images in the bank; raise bank.proxy_images")
    proxies.check(config.proxy)
    proxies.check(config.teacher.dataset)
    channels = teachers.channels(config.teacher)
    build_classifier(config.teacher.network, 2, config.teacher.width)
    build_classifier(config.student.network, 2, config.student.width, channels)


def load_proxy(config: TrialConfig, data_dir: Path | None) -> Proxy:
    """Load a trial's proxy images, turned to what the teacher takes.

    Raises:
        UserError: they are not there, broken, or fewer than `count`.
    """
    images = proxies.load(config.proxy, "train", data_dir, config.count, seed=0)
    ready = to_input(images.images, teachers.channels(config.teacher))
    set_images = len(ready) if config.count else proxies.parent_size(config.proxy, data_dir)
    train, held_out = split(len(ready), config.teacher.holdout, seed=0)
    return Proxy(ready, set_images, train, held_out)


def check_size(config: TrialConfig, proxy: Proxy) -> None:
    """Refuse a proxy with too few images for a batch of what the method trains on it.

    Raises:
        UserError: says how many there are and how many are needed.
    """
    method = METHODS[config.method]
    if method.images is None:
        degan.lengths(config.gan, len(proxy.images), proxy.set_images)
    if method.images == "proxy":
        batch = _image_batch(config, proxy)
        if len(proxy.train) < batch:
            raise UserError(
                f"proxy {config.proxy!r} leaves {len(proxy.train)} images for distillation, "
                f"fewer than a batch of {batch}; lower distill_images.batch_size"
            )


def prepare(
    config: TrialConfig,
    proxy: Proxy,
    true: teachers.TrueImages,
    teacher: teachers.Teacher,
    cache: Path,
    device: str = "cpu",
    run_all: banks.RunAll = banks.one_by_one,
) -> Inputs:
    """Make the bank, and gather what trials on this proxy share."""
    method = METHODS[config.method]
    digest = hashlib.sha256(proxy.images.tobytes()).hexdigest()[:16]
    bank, bank_proxy = banks.obtain(
        config.bank,
        config.gan,
        proxy.images,
        proxy.images[proxy.held_out],
        proxy.set_images,
        teacher.model(device),
        stable_hash(teacher.hash, digest),
        cache,
        device,
        run_all,
    )
    return Inputs(
        teacher,
        proxy,
        bank,
        bank_proxy,
        true.images[true.train] if method.images == "true" else None,
        true.images[true.held_out] if method.images == "true" else None,
        (true.images[true.held_out], true.labels[true.held_out]) if config.objective == "oracle_accuracy" else None,
    )


def run(
    config: TrialConfig, inputs: Inputs, report: Callable[[Event], None] | None = None, device: str = "cpu"
) -> Outcome:
    """Run a trial to its end and return its outcome.

    Raises:
        DivergedError: a loss is not finite, or the generator collapsed.
    """
    stages = Trial(config, inputs, device)
    for event in stages:
        if report:
            report(event)
    return stages.outcome


def save(outcome: Outcome, folder: Path) -> None:
    """Write the student, and where there is one the generator and a grid of its samples, each atomically."""
    write_bytes(folder / "student.safetensors", tensors_bytes(outcome.student.state_dict()))
    if outcome.generator is not None and outcome.samples is not None:
        write_bytes(folder / "generator.safetensors", tensors_bytes(outcome.generator.state_dict()))
        write_bytes(folder / "samples.png", sample_grid(outcome.samples))


class Trial:
    """A trial as an iterator over its events, so that a scheduler may stop it between two of them."""

    outcome: Outcome

    def __init__(self, config: TrialConfig, inputs: Inputs, device: str = "cpu") -> None:
        self.config, self.inputs, self.device = normalised(config), inputs, device
        self.method = METHODS[config.method]
        self.begun = time.monotonic()
        self.gan_steps = 0
        self.teacher = inputs.teacher.model(device)
        images = torch.from_numpy(inputs.bank).to(device)
        self.bank = banks.Bank(images, predict(self.teacher, images), inputs.bank_proxy_images)

    def __iter__(self) -> Iterator[Event]:
        """Run the trial, yielding its events; `outcome` is there after the last."""
        metrics: dict[str, float] = {}
        gan = None
        if self.method.images is None:
            gan = degan.build(
                self.config.gan, self.inputs.teacher.channels, self.teacher, self.config.seed, self.device
            )
            yield from self._train_gan(gan, metrics)
            metrics["gan_seconds"] = self._seconds()
        student = self._student("student")
        source, distilling = self._source(gan), distill_config(self.config)
        last = None
        for last in distill(student, source, distilling, self.config.seed, self.device):
            yield self._event(last)
        metrics["distill_steps"] = last.step if last else 0
        metrics["distill_seconds"] = self._seconds() - metrics.get("gan_seconds", 0.0)
        metrics["gan_steps"] = self.gan_steps
        metrics |= self._compare(student)
        metrics["seconds"] = self._seconds()
        self.outcome = Outcome(metrics, student)
        if gan is not None:
            self.outcome.generator = gan.generator.eval()
            self.outcome.samples = self._samples(gan)
        yield Event("done", 1, 1, self._seconds(), self.gan_steps, metrics)

    def _train_gan(self, gan: degan.Gan, metrics: dict[str, float]) -> Iterator[Event]:
        config, proxy = self.config, torch.from_numpy(self.inputs.proxy.images).to(self.device)
        rungs = config.probe.at
        for progress in degan.train(gan, config.gan, proxy, self.inputs.proxy.set_images, config.seed, rungs):
            self.gan_steps = progress.step
            losses = {
                name: getattr(progress, name) for name in ("d_loss", "g_loss", "adversarial", "entropy", "diversity")
            }
            at_rung = progress.step in rungs
            if at_rung or progress.step == progress.of:
                losses |= self._statistics(gan)
            if at_rung:
                losses["score"] = yield from self._probe(gan, progress.step)
            if progress.step == progress.of:
                metrics |= {name: value for name, value in losses.items() if name != "score"}
            yield Event("gan", progress.step, progress.of, self._seconds(), progress.step, losses)

    def _probe(self, gan: degan.Gan, step: int) -> Generator[Event, None, float]:
        """Distil a fresh student shortly from the generator as it stands; returns its score.

        Its own seed streams leave the GAN's training untouched.
        """
        probe = self.config.probe
        settings = self.config.distill.model_copy(
            update={
                "steps": probe.steps,
                "batch_size": probe.batch_size,
                "lr": probe.lr,
                "steps_per_epoch": probe.steps,
            }
        )
        stage = f"probe at {step}"
        student = self._student(stage)
        source = GeneratorSource(gan.generator, self.config.gan.latent, self.teacher, settings)
        for progress in distill(student, source, settings, self.config.seed, self.device, stage):
            yield self._event(progress)
        return self._compare(student)["score"]

    def _compare(self, student: nn.Module) -> dict[str, float]:
        """Return the bank's measures, and the objective among them as `score`."""
        measures = self.bank.compare(student)
        if self.inputs.oracle is not None:
            images, labels = (torch.from_numpy(part).to(self.device) for part in self.inputs.oracle)
            return measures | {"score": accuracy(predict(student, images), labels)}
        return measures | {"score": measures[self.config.objective]}

    def _student(self, stage: str) -> nn.Module:
        student = self.config.student
        with runtime.seeded(self.config.seed, stage, "weights"):
            model = build_classifier(
                student.network, self.inputs.teacher.classes, student.width, self.inputs.teacher.channels
            )
        model.to(self.device).to(memory_format=torch.channels_last)
        return model

    def _source(self, gan: degan.Gan | None) -> Source:
        config = distill_config(self.config)
        if gan is not None:
            return GeneratorSource(gan.generator, self.config.gan.latent, self.teacher, config)
        inputs = self.inputs
        if self.method.images == "true":
            train, held_out = inputs.true_train, inputs.true_held_out
            assert train is not None and held_out is not None, "prepare() gives them for this method"
            batch = config.batch_size
        else:
            proxy = inputs.proxy
            train, held_out = proxy.images[proxy.train], proxy.images[proxy.held_out]
            batch = _image_batch(self.config, proxy)
        on_device = [torch.from_numpy(part).to(self.device) for part in (train, held_out)]
        return ImageSource(on_device[0], on_device[1], self.teacher, batch, config)

    def _statistics(self, gan: degan.Gan) -> dict[str, float]:
        """Describe the generated classes; for analysis only: the weights optimise these, so nothing selects on them."""
        source = GeneratorSource(gan.generator, self.config.gan.latent, self.teacher)
        rng = runtime.generator(self.config.seed, "statistics", device=self.device)
        images, logits = source.make(STATISTICS_IMAGES, rng)
        return {
            "effective_classes": effective_classes(logits),
            "coverage": coverage(logits),
            "mean_entropy": mean_entropy(logits),
            "bn_distance": statistics_distance(self.teacher, images),
        }

    def _samples(self, gan: degan.Gan) -> Tensor:
        source = GeneratorSource(gan.generator, self.config.gan.latent, self.teacher)
        rng = runtime.generator(self.config.seed, "samples", device=self.device)
        return denormalise(source.make(SAMPLES, rng)[0]).cpu()

    def _event(self, progress: Progress) -> Event:
        return Event(progress.stage, progress.step, progress.of, self._seconds(), self.gan_steps)

    def _seconds(self) -> float:
        return time.monotonic() - self.begun


def distill_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial distils: as from a generator, or as the released code does from images."""
    method = METHODS[config.method]
    return config.distill_images if method.images and not method.matched else config.distill


def _image_batch(config: TrialConfig, proxy: Proxy) -> int:
    distilling = distill_config(config)
    return degan.scaled_batch(distilling.batch_size, distilling.batch_of, len(proxy.images), proxy.set_images)
