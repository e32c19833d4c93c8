"""The teacher: trained once on the true images and cached, or the user's own file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from degan_search.networks.layers import channels_last
from degan_search.networks.table import revision
from degan_search.networks.takes import teacher_input, untrained
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.own_teacher import own_teacher
from degan_search.stages.teacher_file import Teacher, decisive
from degan_search.stages.true_images import TrueImages
from degan_search.system import untrusted
from degan_search.system.errors import UserError
from degan_search.system.weights_file import tensors_bytes
from degan_search.system.whole_files import write_bytes
from degan_search.training.batches import LabelledBatches
from degan_search.training.context import Context
from degan_search.training.cuda_graph import acceleration_of
from degan_search.training.fitted_stage import DROPOUT, FittedStage
from degan_search.training.loop import DivergedError, Fitting, Progress, progress_of
from degan_search.training.losses import sigmoid_loss
from degan_search.training.measures import accuracy, predict
from degan_search.training.resumable import read_state, state_bytes

CHECKPOINT_SECONDS = 60.0
"""Between two saved states of a teacher in training, at least: one the paper's size takes hours on a CPU."""


def obtain(
    config: TeacherConfig,
    true: TrueImages | None,
    cache: Path,
    report: Callable[[Progress], None] | None = None,
    device: str = "cpu",
    run: Callable[[Callable[[], nn.Module]], nn.Module] = lambda task: task(),
) -> Teacher:
    """Return the teacher: the user's own, the cached one, or one trained now and cached.

    The cache entry is named by a hash of the configuration, of the images and of the network's revision. A lock beside
    it makes a second sweep wait for the first instead of training the same teacher again. `run` calls the function
    that trains, here or on another machine. Training that was cut goes on where it was last saved, in the cache.

    Raises:
        UserError: a file of the user's own that does not fit or has another order of classes; a teacher that diverges.
    """
    digest = hashlib.sha256(true.images.tobytes() + true.labels.tobytes()).hexdigest()[:16] if true else None
    if config.path is not None:
        return own_teacher(config, true, digest)
    assert true is not None, "a teacher without a file is trained on true images"
    key = stable_hash(decisive(config), digest, *_changed(config))
    file, facts, saved = (cache / f"{key}.{suffix}" for suffix in ("safetensors", "json", "training"))
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (file.exists() and facts.exists()):
            try:
                model = run(partial(train, config, true, report, device, saved))
            except DivergedError as error:  # through Ray, its text begins with a traceback
                last = str(error).splitlines()[-1]
                raise UserError(f"{last}: the teacher on {config.dataset!r} diverged; lower teacher.fit.lr") from None
            known = {"held_out_accuracy": _held_out_accuracy(model, true, device)}
            write_bytes(file, tensors_bytes(model.state_dict()))
            about = known | {"config": config.model_dump(mode="json")}
            write_bytes(facts, json.dumps(about, indent=1).encode())
            saved.unlink(missing_ok=True)
        data = untrusted.read(file, str(file), untrusted.MODEL_BYTES)
        try:
            known = json.loads(facts.read_text(encoding="utf-8"))
            held_out = float(known["held_out_accuracy"]) if len(true.held_out) else None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{facts} is broken; remove it, and the teacher is trained again") from None
    return Teacher(config, data, ".safetensors", true.classes, key, held_out)


class TeacherTraining(FittedStage):
    """The training of a teacher with `config.loss`; it ends with the weights of the best accuracy on held-out images.

    Where none are held out, the last weights stay.

    Binary cross-entropy is `sigmoid_loss`, each class a sigmoid of its own.
    """

    def __init__(self, config: TeacherConfig, true: TrueImages, device: str = "cpu") -> None:
        """Build an untrained teacher; its weights, the order of images and their augmentation follow `config.seed`."""
        context = Context(config.seed, device, accelerate=acceleration_of("graphs", device))
        with context.seeded("teacher", "weights"):
            model = untrained(config.network, len(true.classes), config.width, teacher_input(config))
        channels_last(model.to(device))
        images, labels = (torch.from_numpy(part[true.train]).to(device) for part in (true.images, true.labels))
        held_out, held_out_labels = _held_out(true, device)
        order_rng, augment_rng = context.generator("teacher", "images"), context.generator("teacher", "augment")
        changes = augment_rng if config.fit.augment else None
        batches = LabelledBatches(images, labels, config.fit.batch_size, order_rng, changes)

        def loss(batch: Tensor, wanted: Tensor) -> Tensor:
            logits = model(batch)
            if config.loss == "cross_entropy":
                return F.cross_entropy(logits, wanted)
            return sigmoid_loss(logits, F.one_hot(wanted, logits.shape[1]).to(logits))

        fitting = Fitting(
            model,
            loss,
            (lambda: accuracy(predict(model, held_out), held_out_labels)) if len(held_out) else None,
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
    saved: Path | None = None,
) -> nn.Module:
    """Train the teacher and return it, reporting after each epoch.

    Args:
        config: its network and training.
        true: the images.
        report: is told of each epoch.
        device: where.
        saved: a file that the training's state is kept in, and from which it goes on with the same bits if it was cut.
            None, or in a folder that this machine does not see: it is not kept.

    Raises:
        DivergedError: the loss is not finite.
    """
    training = TeacherTraining(config, true, device)
    about = {"torch": str(torch.__version__), "device": torch.device(device).type}
    kept = saved if saved and saved.parent.is_dir() else None
    if kept and (state := _saved_state(kept, about)):
        training.load_state_dict(state)
    last = time.monotonic()
    for progress in progress_of(training):
        if report:
            report(progress)
        if kept and time.monotonic() - last >= CHECKPOINT_SECONDS:
            write_bytes(kept, state_bytes({"about": about, "training": training.state_dict()}))
            last = time.monotonic()
    return training.network


def _saved_state(file: Path, about: dict[str, str]) -> dict[str, Any] | None:
    """Return the state of a training that was cut; None if there is none that goes on with the same bits here."""
    if not file.exists():
        return None
    try:
        state = read_state(file.read_bytes(), str(file))
    except UserError:  # broken, or another version's: the training begins anew
        return None
    return state.get("training") if state.get("about") == about else None


def _changed(config: TeacherConfig) -> list[str]:
    """Return what tells a teacher from one of the same settings that an earlier version of this project trained."""
    changes = {f"network {revision(config.network)}": revision(config.network) > 1}
    changes["outputs 100"] = config.loss == "binary_cross_entropy"
    return [change for change, made in changes.items() if made]


def _held_out(true: TrueImages, device: str) -> tuple[Tensor, Tensor]:
    """Return the held-out true images and their labels, on the device."""
    images, labels = (torch.from_numpy(part[true.held_out]).to(device) for part in (true.images, true.labels))
    return images, labels


def _held_out_accuracy(model: nn.Module, true: TrueImages, device: str) -> float | None:
    images, labels = _held_out(true, device)
    return accuracy(predict(model, images), labels) if len(images) else None
