"""Checks of a trial's settings, images and teacher, made before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from degan_search.data import proxies
from degan_search.data.images import split
from degan_search.networks.batch_statistics import norms
from degan_search.networks.table import check_name, has_weights, is_builtin
from degan_search.networks.takes import student_input, teacher_input, untrained
from degan_search.settings import criteria, lengths
from degan_search.settings.criteria import Needs, needing
from degan_search.settings.methods import METHODS, method_of, normalised
from degan_search.settings.trial import TrialConfig
from degan_search.stages import incremental, zskd
from degan_search.stages.teacher_file import Teacher
from degan_search.stages.true_images import TrueImages
from degan_search.system.errors import UserError
from degan_search.trial.images import Proxy, few_of_each, image_batch, tested_on
from degan_search.trial.named_files import sets_of

HELD_OUT_OBJECTIVES = needing(Needs.HELD_OUT_PROXY)
"""Objectives that are measured on held-out proxy images alone."""


def check(config: TrialConfig) -> None:
    """Refuse settings that are wrong whatever the images are; nothing is loaded.

    Raises:
        UserError: unknown method, network, data set, proxy or class; a student that takes other images; settings
            that the method, the task or the teacher cannot have.
    """
    config = normalised(config)
    if config.task == "incremental" and config.probe.at:
        raise UserError(f"probe.at = {list(config.probe.at)}: task incremental has no rungs, it must be []")
    _check_true(config)
    _check_bank(config)
    if not config.teacher.holdout:
        _check_without_held_out(config)
    for name in sets_of(config):
        proxies.check(name)
    if has_weights(config.student.network):
        raise UserError(
            f"student.network {config.student.network!r} is a file of weights, and a student begins without any: "
            "name a network that is built in, torchvision/NAME or FILE.py:FUNCTION"
        )
    teacher, taken = config.teacher, teacher_input(config.teacher)
    for network, takes in ((teacher, taken), (config.student, student_input(config))):
        check_name(network.network, takes.channels, takes.size, network.width)
    if config.gan.lambda_bn and is_builtin(teacher.network):
        with torch.device("meta"):  # no weights are drawn
            _check_norms(config, untrained(teacher.network, 2, teacher.width, taken))


def check_alone(config: TrialConfig) -> None:
    """Refuse a trial that only a search's repeats and final runs can have, as it learns from the search's generators.

    Raises:
        UserError: says where to ask for it.
    """
    if config.combine.members:
        raise UserError("combine.members: a sweep sets it itself, for the students of finished generators")
    if method_of(config).source == "members":
        raise UserError(
            f"method {config.method!r} learns from the generators of a finished search: ask for it by "
            "`finals: {combine: {members: 4}}` in the space file, or by `degan-search finals RUN --combine 4`"
        )


def check_tested(config: TrialConfig, asked: str) -> None:
    """Refuse a final run that has no test images, where something needs them.

    Args:
        config: of the run.
        asked: what needs them, as the user wrote it.

    Raises:
        UserError: says of which images there are none.
    """
    for name in tested_on(config):
        if name is None:
            raise UserError(f"{asked} needs true images, and there are none: name them in teacher.dataset")
        if not proxies.has_test(name):
            raise UserError(f"{asked} needs test images, and {name!r}, your own images, has none: leave it out")


def check_size(config: TrialConfig, proxy: Proxy) -> None:
    """Refuse a proxy with too few images for a batch of what the method trains on it.

    Raises:
        UserError: says how many there are and how many are needed; or that new classes have no labels.
    """
    check_batches(config, len(proxy.images), proxy.set_images, len(proxy.train))
    if config.task == "incremental":
        proxy.labels_of(proxy.train)


def check_batches(config: TrialConfig, images: int, set_images: int, train: int) -> None:
    """Refuse a proxy of so many images, of a set of `set_images`, if they are too few for a batch.

    `train` of them are not held out.

    Raises:
        UserError: says how many there are and how many are needed.
    """
    method = METHODS[config.method]
    if method.generates:
        lengths.gan_lengths(config.gan, images, set_images)
    batch, setting = 0, ""
    if config.task != "incremental" and method.source == "proxy":
        batch, setting = image_batch(config, images, set_images), "distill_images.batch_size"
    elif method.source == "mosaic":
        batch, setting = config.mosaic.batch_size, "mosaic.batch_size"
    if train < batch:
        raise UserError(
            f"proxy {config.proxy!r} leaves {train} images for distillation, "
            f"fewer than a batch of {batch}; lower {setting}"
        )


def check_inputs(config: TrialConfig, proxy: Proxy, true: TrueImages | None, teacher: Teacher) -> None:
    """Refuse what only the loaded images and the teacher show to be wrong.

    Raises:
        UserError: new classes that the teacher knows already, a teacher that the method cannot look into, fewer true
            images of a class than `shots`, or too few images to hold some out.
    """
    config = normalised(config)
    method = METHODS[config.method]
    if config.gan.lambda_bn:
        _check_norms(config, teacher.model())
    if config.task == "incremental":
        incremental.expand(teacher.model(), 1, 0)
        check_new_classes(config, proxy.classes, teacher.class_names)
    if method.source == "zskd":
        zskd.class_similarity(teacher.model())
        split(config.zskd.images, config.teacher.holdout, 0)
    if true and method.source == "few_true":
        split(len(few_of_each(true.labels[true.train], config.shots, 0)), config.teacher.holdout, 0)


def check_new_classes(config: TrialConfig, new: Iterable[str], old: Iterable[str]) -> None:
    """Refuse new classes that the teacher knows already.

    Raises:
        UserError: names them.
    """
    if known := sorted(set(old) & set(new)):
        raise UserError(
            f"{', '.join(known)} of proxy {config.proxy!r} are classes of {config.teacher.dataset!r} already: "
            "task incremental learns new ones"
        )


def _check_true(config: TrialConfig) -> None:
    """Refuse what needs labelled images that are not there."""
    if config.objective == criteria.CHECK and config.teacher.check is None:
        raise UserError(f"objective {config.objective!r} needs a few labelled images: name them in teacher.check")
    if config.teacher.dataset is not None:
        return
    method = METHODS[config.method]
    needs = {
        f"method {config.method!r} distils from true images": method.source in ("true", "few_true"),
        f"objective {config.objective!r} is measured on true images": config.objective == criteria.TRUE,
        "task incremental measures the old classes on true images": config.task == "incremental",
    }
    for what, wanted in needs.items():
        if wanted:
            raise UserError(f"{what}, and there are none: name them in teacher.dataset, or choose another")


def _check_bank(config: TrialConfig) -> None:
    bank = config.bank
    if config.objective in HELD_OUT_OBJECTIVES and not bank.proxy_images:
        raise UserError(f"objective {config.objective!r} needs proxy images in the bank; raise bank.proxy_images")
    for name in bank.judges if config.teacher.dataset else ():
        try:
            proxies.joined(f"{config.teacher.dataset}+{name}")
        except UserError as error:
            raise UserError(
                f"bank.judges: {name!r} would bring true images of {config.teacher.dataset} into the bank ({error}); "
                "name another set"
            ) from None
    if bank.shared and config.task == "incremental":
        raise UserError(
            f"bank.proxies = {list(bank.proxies)}, judges = {list(bank.judges)}: task incremental compares "
            "students on their own proxy alone, whose classes they learn: both must be []"
        )


def _check_without_held_out(config: TrialConfig) -> None:
    """Refuse what is measured on held-out images, where there are none."""
    if config.task != "incremental":
        raise UserError("teacher.holdout = 0: students are scored on held-out images; only task incremental has none")
    if config.objective in (*HELD_OUT_OBJECTIVES, criteria.TRUE):
        raise UserError(f"teacher.holdout = 0: objective {config.objective!r} is measured on held-out images")
    if not (config.bank.generators and config.bank.generated_images):
        raise UserError("teacher.holdout = 0: the bank then has no images but generated ones; give it generators")


def _check_norms(config: TrialConfig, teacher: nn.Module) -> None:
    if config.gan.lambda_bn and not norms(teacher):
        raise UserError(
            f"gan.lambda_bn = {config.gan.lambda_bn:g} needs a teacher with BatchNorm layers that can be looked into; "
            f"{config.teacher.path or config.teacher.network} has none: set it to 0"
        )
