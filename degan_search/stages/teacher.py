"""The teacher: trained once on the true images and cached, or the user's own file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from degan_search.data import proxies
from degan_search.data.images import split, to_input
from degan_search.data.synthetic import Split
from degan_search.networks.frozen import freeze
from degan_search.networks.own import Outputs, as_logits, outputs_of
from degan_search.networks.table import build_classifier, channels
from degan_search.settings.paths import whole
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.class_order import check_class_order
from degan_search.stages.teacher_file import named, read_network, trust
from degan_search.system import untrusted
from degan_search.system.errors import UserError, notice
from degan_search.system.weights_file import tensors_bytes
from degan_search.system.whole_files import write_bytes
from degan_search.training.batches import LabelledBatches
from degan_search.training.context import Context
from degan_search.training.cuda_graph import acceleration_of
from degan_search.training.fitted_stage import DROPOUT, FittedStage
from degan_search.training.loop import DivergedError, Fitting, Progress, progress_of
from degan_search.training.measures import accuracy, predict


@dataclass(frozen=True)
class TrueImages:
    """The true training images as the teacher takes them, and their 80/20 split."""

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    train: Int64[np.ndarray, " a"]
    held_out: Int64[np.ndarray, " b"]


@dataclass(frozen=True)
class Teacher:
    """A teacher as bytes, so that workers can share it; `model` makes the frozen network."""

    config: TeacherConfig
    data: bytes
    suffix: str
    classes: int
    channels: int
    hash: str
    holdout_accuracy: float
    outputs: Outputs = "logits"
    """What the network gives; `model` gives logits always."""

    def model(self, device: str = "cpu") -> nn.Module:
        """Return the frozen network on a device, in eval mode."""
        network = freeze(read_network(self.config, self.data, self.suffix, self.classes, device))
        return as_logits(network, self.outputs).to(device)


def true_images(config: TeacherConfig, data_dir: Path | None, part: Split = "train") -> TrueImages:
    """Load the true images, turned to the teacher's channels and size.

    Args:
        config: names the set; `count` keeps that many training images, class-balanced.
        data_dir: folder of the image sets.
        part: "train", or "test" for the final evaluation, which alone may ask for it.

    Raises:
        UserError: the set is unknown, unlabelled, not there or too small.
    """
    images = proxies.load(config.dataset, part, data_dir, config.count if part == "train" else None, config.seed)
    if images.labels is None or len(images.classes) < 2:
        raise UserError(f"teacher.dataset {config.dataset!r} must be labelled, with at least two classes")
    train, held_out = split(len(images), config.holdout, config.seed)
    if len(train) < config.fit.batch_size:
        raise UserError(
            f"teacher.dataset {config.dataset!r} leaves {len(train)} training images, "
            f"fewer than teacher.fit.batch_size = {config.fit.batch_size}"
        )
    ready = to_input(images.images, channels(config.network))
    return TrueImages(ready, images.labels, images.classes, train, held_out)


def obtain(
    config: TeacherConfig,
    true: TrueImages,
    cache: Path,
    report: Callable[[Progress], None] | None = None,
    device: str = "cpu",
    run: Callable[[Callable[[], nn.Module]], nn.Module] = lambda task: task(),
) -> Teacher:
    """Return the teacher: the user's own, the cached one, or one trained now and cached.

    The cache entry is named by a hash of the configuration and of the images. A lock beside it makes a
    second sweep wait for the first instead of training the same teacher again. `run` calls the function that
    trains, here or on another machine.

    Raises:
        UserError: a file of the user's own that does not fit or has another order of classes; a teacher that diverges.
    """
    digest = hashlib.sha256(true.images.tobytes() + true.labels.tobytes()).hexdigest()[:16]
    if config.path is not None:
        return _own(config, true, digest)
    key = stable_hash(_about(config), digest)
    file, facts = cache / f"{key}.safetensors", cache / f"{key}.json"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (file.exists() and facts.exists()):
            try:
                model = run(partial(train, config, true, report, device))
            except DivergedError as error:  # through Ray, its text begins with a traceback
                last = str(error).splitlines()[-1]
                raise UserError(f"{last}: the teacher on {config.dataset!r} diverged; lower teacher.fit.lr") from None
            known = {"held_out_accuracy": _held_out_accuracy(model, true, device)}
            write_bytes(file, tensors_bytes(model.state_dict()))
            about = known | {"config": config.model_dump(mode="json")}
            write_bytes(facts, json.dumps(about, indent=1).encode())
        data = untrusted.read(file, str(file), untrusted.MODEL_BYTES)
        try:
            held_out = float(json.loads(facts.read_text(encoding="utf-8"))["held_out_accuracy"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{facts} is broken; remove it, and the teacher is trained again") from None
    return Teacher(config, data, ".safetensors", len(true.classes), channels(config.network), key, held_out)


def _about(config: TeacherConfig) -> dict[str, Any]:
    """Return the settings that decide a teacher's weights: all but `trusted`."""
    return config.model_dump(mode="json", exclude={"trusted"})


class TeacherTraining(FittedStage):
    """The training of a teacher with `config.loss`; it ends with the weights of the best accuracy on held-out images.

    Binary cross-entropy is the mean over images and classes, each class a sigmoid of its own (Rebuffi et al. 2017).
    """

    def __init__(self, config: TeacherConfig, true: TrueImages, device: str = "cpu") -> None:
        """Build an untrained teacher; its weights, the order of images and their augmentation follow `config.seed`."""
        context = Context(config.seed, device, accelerate=acceleration_of("graphs", device))
        with context.seeded("teacher", "weights"):
            model = build_classifier(config.network, len(true.classes), config.width)
        model.to(device).to(memory_format=torch.channels_last)
        images, labels = (torch.from_numpy(part[true.train]).to(device) for part in (true.images, true.labels))
        held_out, held_out_labels = _held_out(true, device)
        order_rng, augment_rng = context.generator("teacher", "images"), context.generator("teacher", "augment")
        changes = augment_rng if config.fit.augment else None
        batches = LabelledBatches(images, labels, config.fit.batch_size, order_rng, changes)

        def loss(batch: Tensor, wanted: Tensor) -> Tensor:
            logits = model(batch)
            if config.loss == "cross_entropy":
                return F.cross_entropy(logits, wanted)
            return F.binary_cross_entropy_with_logits(logits, F.one_hot(wanted, logits.shape[1]).to(logits))

        fitting = Fitting(
            model,
            loss,
            lambda: accuracy(predict(model, held_out), held_out_labels),
            config.fit,
            config.fit.steps_per_epoch or -(-len(images) // config.fit.batch_size),
            "teacher",
            batches.__next__,
            context.accelerate,
        )
        dropout_rng = context.generator("teacher", "dropout")
        super().__init__(
            model, fitting, batches, {"order_rng": order_rng, "augment_rng": augment_rng, DROPOUT: dropout_rng}
        )


def train(
    config: TeacherConfig,
    true: TrueImages,
    report: Callable[[Progress], None] | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Train the teacher and return it, reporting after each epoch.

    Raises:
        DivergedError: the loss is not finite.
    """
    training = TeacherTraining(config, true, device)
    for progress in progress_of(training):
        if report:
            report(progress)
    return training.network


def _held_out(true: TrueImages, device: str) -> tuple[Tensor, Tensor]:
    """Return the held-out true images and their labels, on the device."""
    images, labels = (torch.from_numpy(part[true.held_out]).to(device) for part in (true.images, true.labels))
    return images, labels


def _held_out_accuracy(model: nn.Module, true: TrueImages, device: str) -> float:
    images, labels = _held_out(true, device)
    return accuracy(predict(model, images), labels)


def _own(config: TeacherConfig, true: TrueImages, digest: str) -> Teacher:
    """Return the user's own teacher; `digest` is the hash of the true images."""
    path, what = Path(whole(str(config.path))), named(config)
    data = untrusted.read(path, what, untrusted.MODEL_BYTES)
    if config.trusted:
        trust(config)
    network = freeze(read_network(config, data, path.suffix, len(true.classes), note=notice))
    sample = torch.from_numpy(true.images[true.held_out[:8]])
    try:
        outputs = predict(as_logits(network, "logits"), sample)
    except Exception as error:
        raise UserError(
            f"{what} does not take images of shape {tuple(sample.shape[1:])}: "
            f"{(str(error) or repr(error)).splitlines()[0]}"
        ) from None
    if outputs.shape != (len(sample), len(true.classes)):
        raise UserError(
            f"{what} gives {outputs.shape[-1]} outputs, but {config.dataset!r} has {len(true.classes)} classes"
        )
    kind = outputs_of(outputs)
    model = as_logits(network, kind)
    images, labels = _held_out(true, "cpu")
    logits = predict(model, images)
    if not logits.isfinite().all():
        raise UserError(f"{what} gives outputs that are not finite")
    if kind != "logits":
        notice(f"{what} gives {kind.replace('_', '-')}, not logits: logits are made of them")
    check_class_order(what, config.dataset, logits.argmax(1).numpy(), labels.numpy(), true.classes)
    key = stable_hash(_about(config), digest, hashlib.sha256(data).hexdigest(), *([] if kind == "logits" else [kind]))
    holdout = accuracy(logits, labels)
    return Teacher(config, data, path.suffix, len(true.classes), channels(config.network), key, holdout, kind)
