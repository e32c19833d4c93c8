"""One trial, start to end: a pure function of its configuration and inputs. It knows nothing of Ray or of ledgers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from degan_search import bank as banks
from degan_search import degan, incremental, runtime, zskd
from degan_search import teacher as teachers
from degan_search.atomic import write_bytes
from degan_search.batchnorm import norms
from degan_search.checkpoint import tensors_bytes
from degan_search.config import DistillConfig, TrialConfig, stable_hash
from degan_search.data import proxies
from degan_search.data.images import split, to_input
from degan_search.data.synthetic import Split
from degan_search.errors import UserError
from degan_search.methods import METHODS, normalised
from degan_search.metrics import predict
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.pictures import sample_grid

PLAIN = {"optimiser": "adam", "augment": False, "weight_decay": 0.0, "mix_proxy": 0.0}
"""How a probe distils, whatever the trial's profile: it looks at the generator alone."""
KEPT = 4
"""Inputs of which a process keeps what their trials share: a sweep's cells take turns."""
HELD_OUT_OBJECTIVES = ("holdout_agreement", "infomax", "snd", "mcc")
"""Objectives that are measured on held-out proxy images alone."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Proxy:
    """Proxy images as the teacher takes them, and their 80/20 split."""

    images: banks.Images
    set_images: int
    """Images of the whole set, before class filtering."""
    train: np.ndarray
    held_out: np.ndarray
    """No student trains on these; a GAN does."""
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    """The new classes of the task `incremental`, which alone looks at labels."""

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some images.

        Raises:
            UserError: the proxy has none, or one class only.
        """
        if self.labels is None or len(self.classes) < 2:
            raise UserError("task incremental learns the proxy's classes: it must be labelled, with at least two")
        picked: np.ndarray = self.labels[indices]
        return picked


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a trial is given: arrays that trials share, no file, and a true label for few methods alone."""

    teacher: teachers.Teacher
    proxy: Proxy
    bank: banks.Images
    bank_proxy_images: int
    true_train: banks.Images | None = None
    true_held_out: banks.Images | None = None
    """True images, for the methods that distil from them."""
    true_labels: np.ndarray | None = None
    """Of `true_train`, for the method that takes some of each class."""
    oracle: tuple[banks.Images, np.ndarray] | None = None
    """Held-out true images and labels, for the objective `oracle_accuracy` alone."""


class Shared:
    """What trials on the same inputs share on a device: the frozen teacher, and images with its logits.

    No trial changes any of it. Each part is made when it is first asked for, and is there before it is given: trials
    may run on streams of their own.
    """

    def __init__(self, inputs: Inputs, device: str) -> None:
        self.inputs, self.device = inputs, device

    @cached_property
    def teacher(self) -> nn.Module:
        """The frozen network."""
        return runtime.settled(self.inputs.teacher.model(self.device))

    @cached_property
    def fast_teacher(self) -> nn.Module:
        """The teacher with its norms folded."""
        return runtime.settled(freeze(self.teacher, fold_norms=True))

    @cached_property
    def bank(self) -> Pair:
        """The bank's images and logits."""
        images = self.moved(self.inputs.bank)
        return runtime.settled((images, predict(self.teacher, images)))

    @cached_property
    def proxy(self) -> Tensor:
        """Every proxy image."""
        return runtime.settled(self.moved(self.inputs.proxy.images))

    @cached_property
    def proxy_logits(self) -> Pair:
        """The logits of `proxy_parts`."""
        return self._logits(self.proxy_parts())

    @cached_property
    def true_logits(self) -> Pair:
        """The logits of `true_parts`."""
        return self._logits(self.true_parts())

    def proxy_parts(self) -> Pair:
        """Return copies of the proxy's training and held-out images, which nobody keeps."""
        train, held_out = (self.moved(rows) for rows in (self.inputs.proxy.train, self.inputs.proxy.held_out))
        return self.proxy[train], self.proxy[held_out]

    def true_parts(self) -> Pair:
        """Return the true training and held-out images."""
        train, held_out = self.inputs.true_train, self.inputs.true_held_out
        assert train is not None and held_out is not None, "prepare() gives them for this method"
        return self.moved(train), self.moved(held_out)

    def moved(self, array: np.ndarray) -> Tensor:
        """Return an array on the device."""
        return torch.from_numpy(array).to(self.device)

    def _logits(self, parts: Pair) -> Pair:
        return runtime.settled((predict(self.teacher, parts[0]), predict(self.teacher, parts[1])))


@lru_cache(maxsize=KEPT)
def shared(inputs: Inputs, device: str) -> Shared:
    """Return what trials on these inputs share in this process, made once while they are among the last `KEPT`."""
    return Shared(inputs, device)


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
    """A finished trial: its measures, the student, where there is one the generator, and samples of images made."""

    metrics: dict[str, float]
    student: nn.Module
    generator: nn.Module | None = None
    samples: Tensor | None = None


def check(config: TrialConfig) -> None:
    """Refuse what can be seen to be wrong before anything is loaded.

    Raises:
        UserError: unknown method, network, data set, proxy or class; a student that takes other images; settings
            that the method, the task or the teacher cannot have.
    """
    config = normalised(config)
    if config.objective in HELD_OUT_OBJECTIVES and not config.bank.proxy_images:
        raise UserError(f"objective {config.objective!r} needs proxy images in the bank; raise bank.proxy_images")
    if config.task == "incremental" and config.probe.at:
        raise UserError(f"probe.at = {list(config.probe.at)}: task incremental has no rungs, it must be []")
    proxies.check(config.proxy)
    proxies.check(config.teacher.dataset)
    channels = teachers.channels(config.teacher)
    with torch.device("meta"):  # no weights are drawn
        teacher = build_classifier(config.teacher.network, 2, config.teacher.width)
        build_classifier(config.student.network, 2, config.student.width, channels)
    _check_norms(config, teacher)


def _check_norms(config: TrialConfig, teacher: nn.Module) -> None:
    if config.gan.lambda_bn and not norms(teacher):
        raise UserError(
            f"gan.lambda_bn = {config.gan.lambda_bn:g} needs a teacher with BatchNorm layers that can be looked into; "
            f"{config.teacher.path or config.teacher.network} has none: set it to 0"
        )


def load_proxy(config: TrialConfig, data_dir: Path | None, part: Split = "train") -> Proxy:
    """Load a trial's proxy images, turned to what the teacher takes.

    `part` is "test" for the final evaluation of new classes alone, which takes all of them.

    Raises:
        UserError: they are not there, broken, or fewer than `count`.
    """
    images = proxies.load(config.proxy, part, data_dir, config.count if part == "train" else None, seed=0)
    ready = to_input(images.images, teachers.channels(config.teacher))
    set_images = len(ready) if config.count else proxies.parent_size(config.proxy, data_dir)
    train, held_out = split(len(ready), config.teacher.holdout, seed=0)
    return Proxy(ready, set_images, train, held_out, images.labels, images.classes)


def check_size(config: TrialConfig, proxy: Proxy) -> None:
    """Refuse a proxy with too few images for a batch of what the method trains on it.

    Raises:
        UserError: says how many there are and how many are needed; or that new classes have no labels.
    """
    method = METHODS[config.method]
    if method.generates:
        degan.lengths(config.gan, len(proxy.images), proxy.set_images)
    if config.task == "incremental":
        proxy.labels_of(proxy.train)
    elif method.source == "proxy":
        batch = _image_batch(config, proxy)
        if len(proxy.train) < batch:
            raise UserError(
                f"proxy {config.proxy!r} leaves {len(proxy.train)} images for distillation, "
                f"fewer than a batch of {batch}; lower distill_images.batch_size"
            )


def check_inputs(config: TrialConfig, proxy: Proxy, true: teachers.TrueImages, teacher: teachers.Teacher) -> None:
    """Refuse what shows in the teacher and in the images' classes alone.

    Raises:
        UserError: new classes that the teacher knows already, a teacher that the method cannot look into, fewer true
            images of a class than `shots`, or too few images to hold some out.
    """
    method = METHODS[config.method]
    if config.gan.lambda_bn:
        _check_norms(config, teacher.model())
    if config.task == "incremental":
        incremental.expand(teacher.model(), 1, 0)
        if known := sorted(set(true.classes) & set(proxy.classes)):
            raise UserError(
                f"{', '.join(known)} of proxy {config.proxy!r} are classes of {config.teacher.dataset!r} already: "
                "task incremental learns new ones"
            )
    if method.source == "zskd":
        zskd.class_similarity(teacher.model())
        split(config.zskd.images, config.teacher.holdout, 0)
    if method.source == "few_true":
        split(len(few_of_each(true.labels[true.train], config.shots, 0)), config.teacher.holdout, 0)


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
    model = teacher.model(device)
    bank, bank_proxy = banks.obtain(
        config.bank,
        config.gan,
        proxy.images,
        proxy.images[banked(config, proxy)],
        proxy.set_images,
        model,
        stable_hash(teacher.hash, digest),
        cache,
        device,
        run_all,
    )
    inputs = Inputs(teacher, proxy, bank, bank_proxy)
    if method.source in ("true", "few_true"):
        inputs = replace(inputs, true_train=true.images[true.train], true_held_out=true.images[true.held_out])
    if method.source == "few_true":
        inputs = replace(inputs, true_labels=true.labels[true.train])
    if config.objective == "oracle_accuracy":
        inputs = replace(inputs, oracle=oracle_images(config, proxy, true))
    return inputs


def oracle_images(config: TrialConfig, proxy: Proxy, true: teachers.TrueImages) -> tuple[banks.Images, np.ndarray]:
    """Return the held-out true images with their labels; of the task `incremental` also those of the new classes."""
    images, labels = true.images[true.held_out], true.labels[true.held_out]
    if config.task == "distillation":
        return images, labels
    kept = proxy.held_out[len(banked(config, proxy)) :]
    new = len(true.classes) + proxy.labels_of(kept)
    return np.concatenate([images, proxy.images[kept]]), np.concatenate([labels, new])


def banked(config: TrialConfig, proxy: Proxy) -> np.ndarray:
    """Return the held-out proxy images of the bank; of new classes half at most, the others are the oracle's."""
    held_out = proxy.held_out if config.task == "distillation" else proxy.held_out[: len(proxy.held_out) // 2]
    return held_out[: config.bank.proxy_images]


def few_of_each(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Return the indices of `shots` images of each class, drawn without replacement.

    Raises:
        UserError: a class has fewer.
    """
    rng = np.random.default_rng(runtime.stream_seed(seed, "few_shot"))
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if (fewest := min(map(len, rows))) < shots:
        raise UserError(f"shots = {shots} true images of each class, but a class has {fewest}; lower shots")
    return np.concatenate([rng.choice(own, shots, replace=False) for own in rows])


def files(outcome: Outcome) -> dict[str, bytes]:
    """Return what is kept of an outcome by file name: the student, and if any the generator and a grid of samples."""
    kept = {"student.safetensors": tensors_bytes(outcome.student.state_dict())}
    if outcome.generator is not None:
        kept["generator.safetensors"] = tensors_bytes(outcome.generator.state_dict())
    if outcome.samples is not None:
        kept["samples.png"] = sample_grid(outcome.samples)
    return kept


def save(outcome: Outcome, folder: Path) -> None:
    """Write an outcome's files, each atomically."""
    for name, data in files(outcome).items():
        write_bytes(folder / name, data)


def distill_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial distils: as from a generator, or as the released code does from images."""
    method = METHODS[config.method]
    return config.distill if method.generates or method.matched else config.distill_images


def probe_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial's probes distil."""
    probe = config.probe
    own = {"steps": probe.steps, "batch_size": probe.batch_size, "lr": probe.lr, "steps_per_epoch": probe.steps}
    return config.distill.model_copy(update=PLAIN | own)


def _image_batch(config: TrialConfig, proxy: Proxy) -> int:
    distilling = distill_config(config)
    return degan.scaled_batch(distilling.batch_size, distilling.batch_of, len(proxy.images), proxy.set_images)
