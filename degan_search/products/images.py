"""Images from a finished trial's generator, labelled by the teacher, in files for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from degan_search.data import write
from degan_search.data.images import denormalise
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_of
from degan_search.networks.frozen import freeze
from degan_search.stages import teacher as teachers
from degan_search.stages import teacher_file
from degan_search.stages.teacher_file import Teacher
from degan_search.stages.true_images import true_images
from degan_search.storage.layout import CACHE
from degan_search.system import seeds
from degan_search.system.device import choose_device, set_up_torch
from degan_search.system.errors import UserError
from degan_search.training.loop import Progress
from degan_search.training.measures import predict
from degan_search.trial import named_files

CHUNK = 512
"""Images drawn at a time, whatever the count: 1,000 images are the first of 2,000 with the same seed."""

Show = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Order:
    """What images to make."""

    count: int
    format: str = "folders"
    """A key of data.write.FORMATS."""
    balance: bool = False
    """The same number for each class that the teacher predicts."""
    draws: int = 50
    """Images drawn at most for each image wanted: with `balance`, those of classes that are full are left out."""
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """The result of an order: the trial, and how many images there are of each class."""

    trial: pd.Series
    counts: dict[str, int]
    short: tuple[str, ...]
    """Classes that did not get their share (with `balance`) before the limit of draws."""
    drawn: int


def generate(
    run: Path,
    trial: str | None,
    order: Order,
    out: Path,
    storage: Path | None = None,
    data_dir: Path | None = None,
    threads: int = 1,
    show: Show = lambda stage, step, of: None,
) -> Made:
    """Write images from a trial's generator to `out`, in bytes and with the teacher's class of these bytes.

    The same seed gives the same images on one machine and device, with the same number of threads.

    Args:
        run: the run's folder.
        trial: its id, "best" for that of the best score, or None where only one has a generator.
        order: how many images, in which format.
        out: a new file or folder; it becomes visible when it is whole.
        storage: folder whose cache holds the teacher; None: that in which the run lies.
        data_dir: folder of the image sets; the class names are the true set's.
        threads: of torch.
        show: is told the stage, the images or steps done, and of how many.

    Raises:
        UserError: an order that cannot be met, a trial without a generator, or true images that are not the run's.
        OSError: the disk refused; nothing is visible then.
    """
    for name, value in (("count", order.count), ("draws", order.draws)):
        if value < 1:
            raise UserError(f"{name} = {value} must be 1 or more")
    write.check(out, order.format)
    row = networks.find(run, trial, "generator")
    config = config_of(row)
    set_up_torch(threads)
    device = choose_device()
    teacher = _teacher(run, row, storage or run.resolve().parent, data_dir, device, show)
    classes = teacher.class_names
    generator = networks.load_generator(run, str(row["trial_id"]), config)
    wanted = _wanted(order, len(classes))
    counts, drawn = np.zeros(len(classes), np.int64), 0
    about = {"run": run.resolve().name, "trial_id": row["trial_id"], "seed": order.seed, "classes": classes}
    with write.writing(out, order.format, classes, about | {"config": config.model_dump(mode="json")}) as add:
        for images, logits in _draw(
            freeze(generator, fold_norms=True).to(device), teacher.model(device), config.gan.latent, order.seed
        ):
            labels = logits.argmax(dim=1).numpy()
            kept = np.flatnonzero(_fits(labels, wanted - counts))[: order.count - counts.sum()]
            add(images.numpy()[kept], labels[kept], logits.softmax(dim=1).numpy()[kept])
            counts += np.bincount(labels[kept], minlength=len(classes))
            drawn += len(images)
            show("images", int(counts.sum()), order.count)
            if counts.sum() == order.count or drawn >= order.draws * order.count:
                break
    short = tuple(name for name, there, share in zip(classes, counts, wanted, strict=True) if there < share)
    return Made(row, dict(zip(classes, counts.tolist(), strict=True)), short if order.balance else (), drawn)


def _teacher(run: Path, row: pd.Series, storage: Path, data_dir: Path | None, device: str, show: Show) -> Teacher:
    """Return the trial's teacher; a teacher that is not in the cache is trained again."""
    config = teacher_file.recorded(config_of(row).teacher)
    named_files.check(run, [config.path], named_files.teachers_sets(config), data_dir)
    show(f"true images {config.dataset}" if config.dataset else "the teacher", 0, None)
    true = true_images(config, data_dir)

    def tell(progress: Progress) -> None:
        show("training the teacher, which is not in the cache", progress.step, progress.of)

    teacher = teachers.obtain(config, true, storage / CACHE, tell, device)
    if pd.notna(row["teacher_hash"]) and teacher.hash != row["teacher_hash"]:
        what = "teacher.path holds another teacher"
        if config.dataset:
            what = f"{config.dataset!r} here holds other images (or teacher.path another teacher)"
        raise UserError(f"{what} than when {row['trial_id']} ran; name the folder it used with --data-dir")
    return teacher


def _wanted(order: Order, classes: int) -> Int64[np.ndarray, " k"]:
    """Return the most images that each class may have."""
    if not order.balance:
        return np.full(classes, order.count)
    if order.count % classes:
        near = order.count // classes * classes
        raise UserError(
            f"count = {order.count} cannot be shared equally by {classes} classes; "
            f"{near + classes} can" + (f", and {near}" if near else "")
        )
    return np.full(classes, order.count // classes)


@torch.no_grad()
def _draw(
    generator: nn.Module, teacher: nn.Module, latent: int, seed: int
) -> Iterator[tuple[UInt8[Tensor, "n c h w"], Float[Tensor, "n k"]]]:
    """Yield chunks of images and the teacher's logits without end; the noise is drawn on the CPU, for any device."""
    device = next(generator.parameters()).device
    rng = seeds.generator(seed, "generate")
    while True:
        images = denormalise(generator(torch.randn(CHUNK, latent, 1, 1, generator=rng).to(device)))
        yield images.cpu(), predict(teacher, images).cpu()


def _fits(labels: Int64[np.ndarray, " n"], room: Int64[np.ndarray, " k"]) -> Bool[np.ndarray, " n"]:
    """Return which images are wanted, taken in order: `room` of each class."""
    rank = (labels[:, None] == np.arange(len(room))).cumsum(axis=0)[np.arange(len(labels)), labels]
    fits: np.ndarray = rank <= room[labels]
    return fits
