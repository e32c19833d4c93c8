"""Checks of a trial's numbers of images against what can be known of its image sets without loading any."""

from __future__ import annotations

from pathlib import Path

from degan_search.data import proxies
from degan_search.data.images import split
from degan_search.settings.methods import METHODS, normalised
from degan_search.settings.trial import TeacherConfig, TrialConfig
from degan_search.system.errors import UserError
from degan_search.trial.checks import check_batches, check_new_classes
from degan_search.trial.images import compared_on


def check_numbers(config: TrialConfig, data_dir: Path | None) -> None:
    """Refuse what cannot fit the image sets, by their sizes and classes; what these do not tell is passed over.

    Raises:
        UserError: more images asked for than there are, fewer than a batch, true images without classes, or new
            classes that are none.
    """
    config = normalised(config)
    _check_true(config, data_dir)
    for one in dict.fromkeys((config, *compared_on(config))):
        _check_proxy(one, data_dir)
    if config.task == "incremental":
        new = proxies.classes_of(config.proxy)
        old = proxies.classes_of(config.teacher.dataset) if config.teacher.dataset else None
        if new is not None and len(new) < 2:
            raise UserError(f"task incremental learns the classes of proxy {config.proxy!r}: it has {len(new)}")
        check_new_classes(config, new or (), old or ())


def _check_proxy(config: TrialConfig, data_dir: Path | None) -> None:
    size = proxies.size(config.proxy, data_dir)
    if size is not None:
        if config.count_is == "exact":
            _check_count("count", config.count, config.proxy, size)
        images = min(config.count or size, size)
        whole = images if config.count else proxies.parent_size(config.proxy, data_dir)
        check_batches(config, images, whole, len(split(images, config.teacher.holdout, seed=0)[0]))


def _check_true(config: TrialConfig, data_dir: Path | None) -> None:
    teacher: TeacherConfig = config.teacher
    if teacher.dataset is None:
        return
    classes, size = proxies.classes_of(teacher.dataset), proxies.size(teacher.dataset, data_dir)
    if classes is not None and len(classes) < 2:
        raise UserError(f"teacher.dataset {teacher.dataset!r} must be labelled, with at least two classes")
    if size is None:
        return
    _check_count("teacher.count", teacher.count, teacher.dataset, size)
    train = len(split(teacher.count or size, teacher.holdout, teacher.seed)[0])
    if train < teacher.fit.batch_size:
        raise UserError(
            f"teacher.dataset {teacher.dataset!r} leaves {train} training images, "
            f"fewer than teacher.fit.batch_size = {teacher.fit.batch_size}"
        )
    if METHODS[config.method].source == "few_true" and classes and config.shots * len(classes) > train:
        raise UserError(
            f"shots = {config.shots} true images of each of {len(classes)} classes, but {teacher.dataset!r} leaves "
            f"{train} training images; lower shots"
        )


def _check_count(setting: str, count: int | None, name: str, size: int) -> None:
    if count is not None and count > size:
        raise UserError(f"{setting} = {count}: {name} has {size:,} images; ask for that many at most")
