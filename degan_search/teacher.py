"""The teacher: trained once on the true images and cached, or the user's own file."""

from __future__ import annotations

import hashlib
import io
import json
import os
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

from degan_search import runtime, untrusted
from degan_search.atomic import write_bytes
from degan_search.capture import chosen
from degan_search.checkpoint import read_tensors, tensors_bytes
from degan_search.config import TeacherConfig, stable_hash
from degan_search.data import proxies
from degan_search.data.images import split, to_input
from degan_search.data.synthetic import Split
from degan_search.errors import UserError
from degan_search.fit import DivergedError, Fitting, Progress, progress_of
from degan_search.metrics import accuracy, predict
from degan_search.networks.frozen import freeze
from degan_search.networks.layers import draw_from
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.sources import LabelledBatches
from degan_search.training.context import Context

OWN_SUFFIXES = (".safetensors", ".pt", ".pth")
"""A state dict, or TorchScript if it is trusted. Not torch.export: its loader unpickles constants and loads native
code."""

TRUST = "DEGAN_SEARCH_TRUSTED"
_TRUSTED: set[str | None] = set()
"""Paths of files that settings of the user's have called trusted in this process."""


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
    held_out_accuracy: float

    def model(self, device: str = "cpu") -> nn.Module:
        """Return the frozen network on a device, in eval mode."""
        return freeze(_read(self.config, self.data, self.suffix, self.classes)).to(device)


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
    ready = to_input(images.images, channels(config))
    return TrueImages(ready, images.labels, images.classes, train, held_out)


def channels(config: TeacherConfig) -> int:
    """Return the image channels that the teacher's network takes: 1 or 3.

    Raises:
        UserError: unknown network.
    """
    if config.network not in CLASSIFIERS:
        raise UserError(f"teacher.network {config.network!r} is unknown; known: {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[config.network].channels


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
    second sweep wait for the first instead of training the same teacher again. `run` does the training,
    here or elsewhere.

    Raises:
        UserError: a file of the user's own that does not fit; a teacher that diverges.
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
            except DivergedError as error:  # Ray's own errors are of the class that was raised, too
                last = str(error).splitlines()[-1]
                raise UserError(f"{last}: the teacher on {config.dataset!r} diverged; lower teacher.fit.lr") from None
            accuracy_ = _held_out_accuracy(model, true, device)
            write_bytes(file, tensors_bytes(model.state_dict()))
            about = {"held_out_accuracy": accuracy_, "config": config.model_dump(mode="json")}
            write_bytes(facts, json.dumps(about, indent=1).encode())
        data = untrusted.read(file, str(file), untrusted.MODEL_BYTES)
        try:
            held_out = float(json.loads(facts.read_text())["held_out_accuracy"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{facts} is broken; remove it, and the teacher is trained again") from None
    return Teacher(config, data, ".safetensors", len(true.classes), channels(config), key, held_out)


def _about(config: TeacherConfig) -> dict[str, Any]:
    """Return the settings that make a teacher what it is: whether it is trusted does not."""
    return config.model_dump(mode="json", exclude={"trusted"})


def recorded(config: TeacherConfig) -> TeacherConfig:
    """Return a ledger's settings of a teacher for a command that only reads a run: they do not speak for the user.

    TorchScript is trusted if this process was told so by settings of the user's, as in the sweep that made the run,
    or if the environment variable TRUST is 1.
    """
    if config.path in _TRUSTED or os.environ.get(TRUST) == "1":
        return config
    return config.model_copy(update={"trusted": False})


class TeacherTraining:
    """The training of a teacher with `config.loss`; accuracy on the held-out 20% picks its weights.

    Binary cross-entropy is the mean over images and classes, each class a sigmoid of its own (Rebuffi et al. 2017).
    """

    def __init__(self, config: TeacherConfig, true: TrueImages, device: str = "cpu") -> None:
        """Build an untrained teacher; its weights, the order of images and their augmentation are `config.seed`'s."""
        context = Context(config.seed, device, accelerate=chosen("graphs", device))
        with context.seeded("teacher", "weights"):
            model = build_classifier(config.network, len(true.classes), config.width)
        model.to(device).to(memory_format=torch.channels_last)
        self.model = model
        images, labels = (torch.from_numpy(part[true.train]).to(device) for part in (true.images, true.labels))
        self.order_rng = context.generator("teacher", "images")
        self.augment_rng = context.generator("teacher", "augment")
        self.dropout_rng = context.generator("teacher", "dropout")
        changes = self.augment_rng if config.fit.augment else None
        self.batches = LabelledBatches(images, labels, config.fit.batch_size, self.order_rng, changes)

        def loss(batch: Tensor, wanted: Tensor) -> Tensor:
            logits = model(batch)
            if config.loss == "cross_entropy":
                return F.cross_entropy(logits, wanted)
            return F.binary_cross_entropy_with_logits(logits, F.one_hot(wanted, logits.shape[1]).to(logits))

        draw_from(model, self.dropout_rng)
        self.fitting = Fitting(
            model,
            loss,
            lambda: _held_out_accuracy(model, true, device),
            config.fit,
            config.fit.steps_per_epoch or -(-len(images) // config.fit.batch_size),
            "teacher",
            self.batches.__next__,
            context.accelerate,
        )

    @property
    def done(self) -> bool:
        """Whether the teacher has its best weights."""
        return self.fitting.done

    def step(self) -> Progress | None:
        """Train on a batch; returns the progress after an epoch.

        Raises:
            DivergedError: the loss is not finite.
        """
        progress = self.fitting.step()
        if self.done:
            draw_from(self.model, None)
        return progress

    def state_dict(self) -> dict[str, Any]:
        """Return the training's state, that of the batches, and the random streams'."""
        return {
            "fitting": self.fitting.state_dict(),
            "batches": self.batches.state_dict(),
            "order_rng": self.order_rng.get_state(),
            "augment_rng": self.augment_rng.get_state(),
            "dropout_rng": self.dropout_rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.fitting.load_state_dict(state["fitting"])
        self.batches.load_state_dict(state["batches"])
        self.order_rng.set_state(state["order_rng"])
        self.augment_rng.set_state(state["augment_rng"])
        self.dropout_rng.set_state(state["dropout_rng"])
        if self.done:
            draw_from(self.model, None)


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
    return training.model


def _held_out_accuracy(model: nn.Module, true: TrueImages, device: str) -> float:
    images, labels = (torch.from_numpy(part[true.held_out]).to(device) for part in (true.images, true.labels))
    return accuracy(predict(model, images), labels)


def _own(config: TeacherConfig, true: TrueImages, digest: str) -> Teacher:
    path = Path(str(config.path))
    if path.suffix not in OWN_SUFFIXES or not os.path.lexists(path):
        raise UserError(f"teacher.path {config.path!r} must be a file ending in {', '.join(OWN_SUFFIXES)}")
    data = untrusted.read(path, f"teacher.path {config.path!r}", untrusted.MODEL_BYTES)
    if config.trusted:
        _TRUSTED.add(config.path)
    model = freeze(_read(config, data, path.suffix, len(true.classes)))
    sample = torch.from_numpy(true.images[true.held_out[:8]])
    try:
        outputs = predict(model, sample)
    except Exception as error:
        raise UserError(
            f"teacher.path {config.path!r} does not take images of shape {tuple(sample.shape[1:])}: "
            f"{(str(error) or repr(error)).splitlines()[0]}"
        ) from None
    if outputs.shape != (len(sample), len(true.classes)):
        raise UserError(
            f"teacher.path {config.path!r} gives {outputs.shape[-1]} outputs, "
            f"but {config.dataset!r} has {len(true.classes)} classes"
        )
    if not outputs.isfinite().all():
        raise UserError(f"teacher.path {config.path!r} gives outputs that are not finite")
    held_out = _held_out_accuracy(model, true, "cpu")
    key = stable_hash(_about(config), digest, hashlib.sha256(data).hexdigest())
    return Teacher(config, data, path.suffix, len(true.classes), channels(config), key, held_out)


def _read(config: TeacherConfig, data: bytes, suffix: str, classes: int) -> nn.Module:
    """Build the network from a file's bytes; no pickled code is run, and no TorchScript that is not trusted."""
    what = f"teacher.path {config.path!r}" if config.path else "the teacher in the cache"
    if suffix == ".safetensors":
        state = read_tensors(data, what)
    elif _is_script(data, what):
        return _script(config, data, what)
    else:
        state = _state(data, what)
    with runtime.seeded(config.seed, "teacher", "weights"):  # overwritten, but torch's own generator must not move
        model = build_classifier(config.network, classes, config.width)
    misfit = (
        f"{what} does not fit network {config.network!r} with {classes} classes "
        f"and width {config.width or CLASSIFIERS[config.network].width}"
    )
    try:
        expected = model.state_dict()
        for name in expected.keys() & state.keys():
            if state[name].is_floating_point() != expected[name].is_floating_point():
                raise UserError(f"{misfit}: {name} is {state[name].dtype}, not {expected[name].dtype}")
        model.load_state_dict(state)
    except UserError:
        raise
    except Exception as error:  # kinds of tensors that copying refuses
        raise UserError(f"{misfit}: {(str(error) or repr(error)).splitlines()[-1].strip()}") from None
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise UserError(f"{what} holds values in {name} that are not finite")
    return model


def _is_script(data: bytes, what: str) -> bool:
    try:
        return untrusted.is_script(untrusted.check_zip(io.BytesIO(data), what, untrusted.MODEL_BYTES))
    except UserError as error:
        raise UserError(f"{what} is neither TorchScript nor a plain state dict (weights only): {error}") from None


def _script(config: TeacherConfig, data: bytes, what: str) -> nn.Module:
    if not config.trusted:
        raise UserError(
            f"{what} is TorchScript, a program that runs on this machine: set teacher.trusted to true (for a command "
            f"that reads a run, {TRUST}=1) if you know who made it, or give a state dict (.safetensors)"
        )
    try:
        script: nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UserError(f"{what} is not whole TorchScript: {str(error).strip().splitlines()[0]}") from None
    return script


def _state(data: bytes, what: str) -> dict[str, Tensor]:
    try:
        untrusted.check_state(data, what)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a made-up file makes the reader raise
        why = error if isinstance(error, UserError) else "it is broken"
        raise UserError(f"{what} is neither TorchScript nor a plain state dict (weights only): {why}") from None
    plain = isinstance(state, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items())
    if not plain:
        raise UserError(f"{what} holds no plain state dict, tensors by name")
    return dict(state)  # without what else an OrderedDict may carry
