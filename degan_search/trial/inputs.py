"""What a trial is given, and how it is prepared: images loaded, the teacher obtained, all checked, the bank made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from degan_search.networks.takes import generated_size, teacher_input
from degan_search.settings import criteria
from degan_search.settings.methods import METHODS
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TeacherConfig, TrialConfig
from degan_search.stages import teacher as teachers
from degan_search.stages.teacher_file import Teacher
from degan_search.stages.true_images import LabelledImages, TrueImages, check_images, true_images
from degan_search.training.loop import Progress
from degan_search.trial import bank as banks
from degan_search.trial.checks import check, check_inputs, check_size
from degan_search.trial.images import Proxy, compared_on, held_out_images, held_out_of, load_proxy, oracle_images
from degan_search.trial.shared import Shared

Show = Callable[[str, int, int | None], None]
"""Is told the stage, its steps done, and how many there are, if that is known."""
Train = Callable[[Callable[[], nn.Module]], nn.Module]
"""Trains a network, here or elsewhere, and returns it."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a trial is given: arrays that trials share and no file; true images and labels only where needed."""

    teacher: Teacher
    proxy: Proxy
    bank: banks.Images
    bank_proxy_images: int
    true_train: banks.Images | None = None
    true_held_out: banks.Images | None = None
    """True images, for the methods that distil from them."""
    true_labels: np.ndarray | None = None
    """Of `true_train`, for the method that takes some of each class."""
    judged_on: tuple[banks.Images, np.ndarray] | None = None
    """Images and labels for the objectives that are accuracies: held-out true ones, or those of `teacher.check`."""
    _on: dict[str, Shared] = field(default_factory=dict, init=False, repr=False)

    def on(self, device: str) -> Shared:
        """Return what trials on these inputs share on a device, made once and kept as long as the inputs."""
        if device not in self._on:
            true = self.true_train, self.true_held_out
            self._on[device] = Shared(self.teacher, self.proxy, self.bank, true, device)
        return self._on[device]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is on a device: another process makes its own."""
        return self.__dict__ | {"_on": {}}


@dataclass(frozen=True, eq=False)
class Loaded:
    """The images and the teacher of a configuration, which fit it and each other."""

    config: TrialConfig
    proxy: Proxy
    true: TrueImages | None
    teacher: Teacher
    compared_on: tuple[Proxy, ...]
    """The proxies whose images make the bank."""
    held_out: banks.Images
    """Their images in it."""
    check: LabelledImages | None = None
    """The few labelled images of `teacher.check`."""


def prepare(
    config: TrialConfig,
    data_dir: Path | None,
    cache: Path,
    device: str = "cpu",
    run_all: banks.RunAll = banks.one_by_one,
    show: Show = lambda stage, step, of: None,
) -> Inputs:
    """Return what a trial of this configuration is given.

    Args:
        config: the trial's.
        data_dir: folder of the image sets.
        cache: folder of trained teachers and of banks; what is missing is made and kept there.
        device: where the teacher and the bank's generators train.
        run_all: makes the parts of the bank, one after the other or side by side.
        show: is told what takes time.

    Raises:
        UserError: a wrong configuration, or data that are not there or do not fit.
    """
    (loaded,) = load([config], data_dir, cache, device, report=lambda at: show("teacher", at.step, at.of))
    show("comparison images", 0, None)
    return gather(loaded, cache, device, run_all)


def load(
    configs: Sequence[TrialConfig],
    data_dir: Path | None,
    cache: Path,
    device: str = "cpu",
    show: Callable[[str], None] = lambda text: None,
    report: Callable[[Progress], None] | None = None,
    train: Train | None = None,
) -> list[Loaded]:
    """Return the images and teachers of configurations, all checked; what several share is loaded or trained once.

    No teacher trains before all images are loaded and their numbers checked.

    Args:
        configs: of the trials.
        data_dir: folder of the image sets.
        cache: folder of trained teachers.
        device: where teachers train.
        show: is told in words what is done.
        report: is told how the training of a teacher goes.
        train: if given, several teachers train by it, side by side.

    Raises:
        UserError: a wrong configuration, or data that are not there or do not fit.
    """
    for config in configs:
        check(config)
    show("Loading images")
    proxies: dict[str, Proxy] = {}
    for one in dict.fromkeys(one for config in configs for one in (config, *held_out_of(config))):
        key = _proxy_key(one)
        if key not in proxies:
            proxies[key] = load_proxy(one, data_dir)
    for one in dict.fromkeys(one for config in configs for one in (config, *compared_on(config))):
        check_size(one, proxies[_proxy_key(one)])
    wanted = list(dict.fromkeys(config.teacher for config in configs))
    if named := [teacher.dataset for teacher in wanted if teacher.dataset]:
        show(f"Loading {', '.join(dict.fromkeys(named))}")
    true = {teacher: true_images(teacher, data_dir) for teacher in wanted}
    if len(wanted) == 1 or train is None:
        trained = {config: teachers.obtain(config, images, cache, report, device) for config, images in true.items()}
    else:
        show(f"Training {len(wanted)} teachers")
        trained = _side_by_side(true, cache, device, train)
    few = {config: check_images(config, data_dir, teacher.class_names) for config, teacher in trained.items()}
    loaded = []
    held_out: dict[str, banks.Images] = {}
    for config in configs:
        proxy, images, teacher = proxies[_proxy_key(config)], true[config.teacher], trained[config.teacher]
        check_inputs(config, proxy, images, teacher)
        keys = [_proxy_key(one) for one in held_out_of(config)]
        judging, key = tuple(proxies[one] for one in keys), stable_hash(config.task, config.bank.proxy_images, *keys)
        if key not in held_out:
            held_out[key] = held_out_images(config, judging)
        compared = judging[: len(compared_on(config))]
        loaded.append(Loaded(config, proxy, images, teacher, compared, held_out[key], few[config.teacher]))
    return loaded


def gather(loaded: Loaded, cache: Path, device: str = "cpu", run_all: banks.RunAll = banks.one_by_one) -> Inputs:
    """Make the bank, and gather what trials on these images are given."""
    config, true, teacher = loaded.config, loaded.true, loaded.teacher
    generated = [
        banks.obtain(
            config.bank,
            config.gan,
            proxy.images,
            proxy.set_images,
            teacher.model,
            generated_size(config.gan, teacher.takes),
            stable_hash(teacher.hash, proxy.hash),
            cache,
            device,
            run_all,
        )
        for proxy in loaded.compared_on
    ]
    source = METHODS[config.method].source
    uses_true = source in ("true", "few_true")
    return Inputs(
        teacher,
        loaded.proxy,
        np.concatenate([loaded.held_out, *generated]),
        len(loaded.held_out),
        true_train=true.images[true.train] if true and uses_true else None,
        true_held_out=true.images[true.held_out] if true and uses_true else None,
        true_labels=true.labels[true.train] if true and source == "few_true" else None,
        judged_on=_judged_on(loaded),
    )


def _judged_on(loaded: Loaded) -> tuple[banks.Images, np.ndarray] | None:
    """Return the images and labels that the objective is measured on, if it is an accuracy."""
    if loaded.config.objective == criteria.TRUE and loaded.true:
        return oracle_images(loaded.config, loaded.proxy, loaded.true)
    if loaded.config.objective == criteria.CHECK and loaded.check:
        return loaded.check.images, loaded.check.labels
    return None


def inputs_key(config: TrialConfig) -> str:
    """Return the name of the inputs that a trial needs: trials of one key share them.

    GAN settings that vary from trial to trial are no part of it: all are compared on one bank.
    """
    source = METHODS[config.method].source
    true = source if source in ("true", "few_true") else None
    images = config.proxy, config.count, config.proxy_fit, config.gan.size
    return stable_hash(config.task, config.teacher, *images, config.bank, true, config.objective)


def bank_key(config: TrialConfig) -> str:
    """Return the name of the images that a trial's student is compared on: trials of one key compete."""
    return inputs_key(compared_on(config)[0])


def _proxy_key(config: TrialConfig) -> str:
    """Return what decides a trial's `Proxy`: name, count, the shape of the teacher's input, and what is held out."""
    shape, split = teacher_input(config.teacher).shape, (config.teacher.holdout, config.bank.shared)
    return f"{config.proxy} {config.proxy_fit} {config.count} {shape} {split}"


def _side_by_side(
    true: Mapping[TeacherConfig, TrueImages | None], cache: Path, device: str, train: Train
) -> dict[TeacherConfig, Teacher]:
    def obtain(config: TeacherConfig) -> Teacher:
        return teachers.obtain(config, true[config], cache, None, device, train)

    pool = ThreadPoolExecutor(len(true))
    try:
        return dict(zip(true, pool.map(obtain, true), strict=True))
    finally:  # after an interruption, do not wait for teachers that still train
        pool.shutdown(wait=False, cancel_futures=True)
