"""The user's own teacher: its file is read, tried on images, and its classes are counted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from degan_search.networks.front import Classifier
from degan_search.networks.frozen import freeze
from degan_search.networks.image_input import ImageInput
from degan_search.networks.own import outputs_of
from degan_search.networks.takes import teacher_input
from degan_search.settings.paths import whole
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TeacherConfig
from degan_search.stages.class_order import check_class_order
from degan_search.stages.teacher_file import Teacher, decisive, named, read_network, trust
from degan_search.stages.true_images import TrueImages
from degan_search.system import seeds, untrusted
from degan_search.system.errors import UserError, notice
from degan_search.training.measures import accuracy, predict

SAMPLE = 8
"""Images that a teacher is tried on."""
NAMES_BYTES = 2**20
"""Of a text file with names of classes."""


def given_classes(config: TeacherConfig) -> tuple[str, ...] | None:
    """Return the names of classes that `teacher.classes` gives; numbers in place of names if it is a number.

    Raises:
        UserError: a text file that cannot be read, or has fewer than two names, or one twice.
    """
    if config.classes is None:
        return None
    if "\n" in config.classes:
        return tuple(config.classes.split("\n"))
    if config.classes.isdecimal():
        return tuple(map(str, range(int(config.classes))))
    what = f"teacher.classes {whole(config.classes)!r}"
    data = untrusted.read(Path(whole(config.classes)), what, NAMES_BYTES)
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{what} is no text in UTF-8; it must have the name of a class on each line") from None
    if len(names) < 2 or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise UserError(
            f"{what} has {f'{twice!r} twice' if twice else f'{len(names)} names'}: expected one on each line"
        )
    return tuple(names)


def own_teacher(config: TeacherConfig, true: TrueImages | None, digest: str | None) -> Teacher:
    """Return the user's own teacher, once it has been tried on images.

    Args:
        config: names the file, and what it takes.
        true: true images, whose held-out part shows whether its classes are in their order; None: there are none.
        digest: hash of the true images.

    Raises:
        UserError: a file that cannot be read or does not fit, outputs that are not finite, or another order of classes.
    """
    path, what = Path(whole(str(config.path))), named(config)
    data = untrusted.read(path, what, untrusted.MODEL_BYTES)
    if config.trusted:
        trust(config)
    takes, names = teacher_input(config), true.classes if true else given_classes(config)
    network = freeze(read_network(config, data, path.suffix, len(names) if names else None, note=notice))
    sample = _sample(true, takes)
    try:
        outputs = predict(Classifier(network, takes), sample)
    except Exception as error:
        raise UserError(
            f"{what} does not take images of shape {tuple(sample.shape[1:])}: "
            f"{(str(error) or repr(error)).splitlines()[0]}"
        ) from None
    if outputs.ndim != 2 or len(outputs) != len(sample) or outputs.shape[1] < 2:
        raise UserError(
            f"{what} gives outputs of shape {tuple(outputs.shape)} for {len(sample)} images, not [N, classes]"
        )
    if names and outputs.shape[1] != len(names):
        known = f"{config.dataset!r} has {len(names)} classes" if true else f"teacher.classes has {len(names)}"
        raise UserError(f"{what} gives {outputs.shape[-1]} outputs, but {known}")
    if not outputs.isfinite().all():
        raise UserError(f"{what} gives outputs that are not finite")
    kind = outputs_of(outputs)
    if kind != "logits":
        notice(f"{what} gives {kind.replace('_', '-')}, not logits: logits are made of them")
    model = Classifier(network, takes, kind)
    holdout = _checked_accuracy(config, model, true) if true else None
    key = stable_hash(decisive(config), digest, hashlib.sha256(data).hexdigest(), *([] if kind == "logits" else [kind]))
    names = names or tuple(str(label) for label in range(outputs.shape[1]))
    return Teacher(config, data, path.suffix, names, key, holdout, kind)


def _checked_accuracy(config: TeacherConfig, model: nn.Module, true: TrueImages) -> float | None:
    images, labels = (torch.from_numpy(part[true.tried_on]) for part in (true.images, true.labels))
    logits, what = predict(model, images), named(config)
    if not logits.isfinite().all():
        raise UserError(f"{what} gives outputs that are not finite")
    check_class_order(what, str(config.dataset), logits.argmax(1).numpy(), labels.numpy(), true.classes)
    return accuracy(logits, labels) if len(true.held_out) else None


def _sample(true: TrueImages | None, takes: ImageInput) -> UInt8[Tensor, "n c h w"]:
    """Return images to try a teacher on: true ones, or noise."""
    if true:
        return torch.from_numpy(true.images[true.tried_on[:SAMPLE]])
    rng = seeds.generator(0, "teacher", "sample")
    return torch.randint(0, 256, (SAMPLE, *takes.shape), generator=rng, dtype=torch.uint8)
