"""True images: those that a teacher was trained on, and a few labelled ones to measure students on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from degan_search.data import proxies
from degan_search.data.images import split
from degan_search.data.synthetic import Split
from degan_search.networks.takes import teacher_input
from degan_search.settings.trial import TeacherConfig
from degan_search.system.errors import LISTED, UserError


@dataclass(frozen=True)
class TrueImages:
    """The true training images as the teacher takes them, and their 80/20 split."""

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    train: Int64[np.ndarray, " a"]
    held_out: Int64[np.ndarray, " b"]

    @property
    def tried_on(self) -> Int64[np.ndarray, " n"]:
        """The rows that networks are tried on: those held out, or where there are none the others."""
        return self.held_out if len(self.held_out) else self.train


@dataclass(frozen=True)
class LabelledImages:
    """Images as the teacher takes them, with their labels."""

    images: UInt8[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]


def true_images(config: TeacherConfig, data_dir: Path | None, part: Split = "train") -> TrueImages | None:
    """Load the true images as the teacher takes them; None: there are none.

    Args:
        config: names the set, if there is one; `count` keeps that many training images, class-balanced.
        data_dir: folder of the image sets.
        part: "train", or "test" for the final evaluation, which alone may ask for it.

    Raises:
        UserError: the set is unknown, unlabelled, not there or too small.
    """
    if config.dataset is None:
        return None
    takes, count = teacher_input(config), config.count if part == "train" else None
    images = proxies.load(config.dataset, part, data_dir, count, config.seed, takes.size, channels=takes.channels)
    if images.labels is None or len(images.classes) < 2:
        raise UserError(f"teacher.dataset {config.dataset!r} must be labelled, with at least two classes")
    train, held_out = split(len(images), config.holdout, config.seed)
    if len(train) < config.fit.batch_size:
        raise UserError(
            f"teacher.dataset {config.dataset!r} leaves {len(train)} training images, "
            f"fewer than teacher.fit.batch_size = {config.fit.batch_size}"
        )
    return TrueImages(images.images, images.labels, images.classes, train, held_out)


def check_images(config: TeacherConfig, data_dir: Path | None, classes: tuple[str, ...]) -> LabelledImages | None:
    """Load the few labelled images that students are measured on (`teacher.check`); None: there are none.

    Args:
        config: names them.
        data_dir: folder of the image sets.
        classes: the teacher's, by which the images' classes are known: by name where all names are the teacher's, else
            by their order.

    Raises:
        UserError: unlabelled images, or classes that are not the teacher's.
    """
    if config.check is None:
        return None
    takes = teacher_input(config)
    images = proxies.load(config.check, "train", data_dir, size=takes.size, channels=takes.channels)
    if images.labels is None:
        raise UserError(f"teacher.check {config.check!r} must be labelled: a subfolder for each class")
    labels = images.labels
    if set(images.classes) <= set(classes):
        labels = np.array([classes.index(name) for name in images.classes])[labels]
    elif len(images.classes) != len(classes):
        unknown = next(name for name in images.classes if name not in classes)
        raise UserError(
            f"teacher.check {config.check!r} has the class {unknown!r}, which is none of the teacher's "
            f"{len(classes)} ({', '.join(classes[:LISTED])}{', ...' if len(classes) > LISTED else ''})"
        )
    return LabelledImages(images.images, labels)
