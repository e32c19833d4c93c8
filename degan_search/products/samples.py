"""Samples of a finished trial's generator and of its proxy, by the teacher's class."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from degan_search.data.images import denormalise
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_of
from degan_search.settings.trial import TeacherConfig
from degan_search.stages import teacher as teachers
from degan_search.stages import teacher_file
from degan_search.stages.image_sources import GeneratorSource
from degan_search.stages.true_images import true_images
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.training.measures import predict
from degan_search.trial.images import load_proxy


class Samples(NamedTuple):
    """Images of a generator and of the proxy it was trained on, with the teacher's classes, 0..K-1."""

    generated: UInt8[np.ndarray, "n c h w"]
    generated_classes: Int64[np.ndarray, " n"]
    proxy_images: UInt8[np.ndarray, "m c h w"]
    proxy_classes: Int64[np.ndarray, " m"]
    class_names: tuple[str, ...]


def class_samples(run: Path, trial_id: str, data_dir: Path | None, cache: Path, images: int = 2000) -> Samples:
    """Return new images of a trial's generator, and images drawn from its proxy, by the teacher's class.

    The same trial gives the same images. Of the true set the class names alone are used.

    Args:
        run: the run's folder.
        trial_id: a finished trial's.
        data_dir: folder of the image sets.
        cache: folder of trained teachers.
        images: of each kind, at most what the proxy has.

    Raises:
        UserError: no such trial, no generator, no teacher in the cache, or images that are not there or not the run's.
    """
    row = networks.find(run, trial_id, "generator")
    config = config_of(row)
    file = cache / f"{row['teacher_hash']}.safetensors"
    if config.teacher.path is None and not file.is_file():
        raise UserError(f"the teacher of {trial_id} is not kept at {file}: --storage must name the folder of its cache")
    teacher = _teacher(config.teacher, data_dir, cache)
    if teacher.hash != row["teacher_hash"]:
        raise UserError(f"{config.teacher.dataset!r} holds other images here than when {trial_id} ran: see --data-dir")
    model = teacher.model()
    generator = networks.load_generator(run, trial_id, config)
    source = GeneratorSource(generator, config.gan.latent, model)
    made = denormalise(source.make(images, seeds.generator(config.seed, "show"))[0])
    proxy = load_proxy(config, data_dir).images
    drawn = proxy[np.random.default_rng(config.seed).permutation(len(proxy))[:images]]
    classes = [predict(model, part).argmax(dim=1).numpy() for part in (made, torch.from_numpy(drawn))]
    return Samples(made.numpy(), classes[0], drawn, classes[1], teacher.class_names)


@lru_cache(maxsize=1)
def _teacher(config: TeacherConfig, data_dir: Path | None, cache: Path) -> teacher_file.Teacher:
    """Return the teacher; kept, as a run's trials have one."""
    return teachers.obtain(teacher_file.recorded(config), true_images(config, data_dir), cache)
