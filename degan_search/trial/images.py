"""The images of a trial: the proxy, as the teacher takes it, its split, and the images of bank and oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from degan_search.data import proxies
from degan_search.data.images import CountError, ImageSet, split, split_by_content
from degan_search.data.synthetic import Split
from degan_search.networks.takes import teacher_input
from degan_search.settings import lengths
from degan_search.settings.lengths import distill_config
from degan_search.settings.trial import TrialConfig
from degan_search.stages.true_images import TrueImages
from degan_search.system import seeds
from degan_search.system.errors import UserError
from degan_search.trial import bank as banks


@dataclass(frozen=True, eq=False)
class Proxy:
    """Proxy images as the teacher takes them, and their 80/20 split."""

    images: banks.Images
    set_images: int
    """Images of the whole set, before class filtering."""
    train: np.ndarray
    held_out: np.ndarray
    """No student trains on these; the GAN does."""
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    """The new classes of the task `incremental`, which alone looks at labels."""

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some images.

        Raises:
            UserError: the proxy has none, or one class only.
        """
        if self.labels is None or len(self.classes) < 2:
            raise UserError("task incremental learns the proxy's classes: it must be labelled, with at least two")
        picked: np.ndarray = self.labels[indices]
        return picked

    @cached_property
    def hash(self) -> str:
        """Of all images."""
        return hashlib.sha256(self.images.tobytes()).hexdigest()[:16]


def load_proxy(config: TrialConfig, data_dir: Path | None, part: Split = "train") -> Proxy:
    """Load a trial's proxy images, turned to what the teacher takes.

    `part` is "test" for the final evaluation of new classes alone, which takes all of them.

    Raises:
        UserError: they are not there, broken, or fewer than `count`.
    """
    takes, count = teacher_input(config.teacher), config.count if part == "train" else None

    def load(count: int | None) -> ImageSet:
        return proxies.load(config.proxy, part, data_dir, count, 0, takes.size, config.proxy_fit, takes.channels)

    try:
        images = load(count)
    except CountError as error:
        if config.count_is == "exact" or not error.images:
            raise
        images = load(error.images)
    ready = images.images
    set_images = len(ready) if config.count else proxies.parent_size(config.proxy, data_dir)
    if config.bank.shared:
        train, held_out = split_by_content(ready, config.teacher.holdout)
    else:
        train, held_out = split(len(ready), config.teacher.holdout, seed=0)
    return Proxy(ready, set_images, train, held_out, images.labels, images.classes)


def banked(config: TrialConfig, proxy: Proxy) -> Int64[np.ndarray, " n"]:
    """Return the indices of the bank's proxy images, which are held out.

    In the task `incremental` they are at most half of those held out; the oracle is measured on the others.
    """
    held_out = proxy.held_out if config.task == "distillation" else proxy.held_out[: len(proxy.held_out) // 2]
    return held_out[: config.bank.proxy_images]


def compared_on(config: TrialConfig) -> list[TrialConfig]:
    """Return the same trial on each proxy whose images make its bank: its own, unless `bank.proxies` names others."""
    return [config.model_copy(update={"proxy": name}) for name in config.bank.compared_on(config.proxy)]


def tested_on(config: TrialConfig) -> list[str | None]:
    """Return the sets whose test images a final run is measured on; None: it has no true images."""
    return [config.teacher.dataset, *([config.proxy] if config.task == "incremental" else [])]


def held_out_of(config: TrialConfig) -> list[TrialConfig]:
    """Return `compared_on(config)`, and a trial on each of the bank's judges, with as many images as the bank needs."""
    holdout = config.teacher.holdout
    most = round(config.bank.proxy_images / holdout) if holdout else 0
    judge = config.model_copy(update={"count": most, "count_is": "most"})
    judges = config.bank.judges if most else ()
    return [*compared_on(config), *(judge.model_copy(update={"proxy": name}) for name in judges)]


def held_out_images(config: TrialConfig, proxies: Sequence[Proxy]) -> banks.Images:
    """Return the bank's proxy images, those of one proxy after the other's; one that several hold out counts once.

    Args:
        config: of a trial.
        proxies: of each trial in `held_out_of(config)`.
    """
    if len(proxies) == 1:
        alone: banks.Images = proxies[0].images[banked(config, proxies[0])]
        return alone
    seen: set[bytes] = set()
    parts = []
    for proxy in proxies:
        kept = {digest: row for row in banked(config, proxy) if (digest := proxy.images[row].tobytes()) not in seen}
        seen.update(kept)
        parts.append(proxy.images[list(kept.values())])
    return np.concatenate(parts)


def few_of_each(labels: Int64[np.ndarray, " n"], shots: int, seed: int) -> Int64[np.ndarray, " k"]:
    """Return the indices of `shots` images of each class, drawn without replacement.

    Raises:
        UserError: a class has fewer.
    """
    rng = np.random.default_rng(seeds.stream_seed(seed, "few_shot"))
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if (fewest := min(map(len, rows))) < shots:
        raise UserError(f"shots = {shots} true images of each class, but a class has {fewest}; lower shots")
    return np.concatenate([rng.choice(own, shots, replace=False) for own in rows])


def oracle_images(config: TrialConfig, proxy: Proxy, true: TrueImages) -> tuple[banks.Images, np.ndarray]:
    """Return the held-out true images with their labels; of the task `incremental` also those of the new classes."""
    images, labels = true.images[true.held_out], true.labels[true.held_out]
    if config.task == "distillation":
        return images, labels
    kept = proxy.held_out[len(banked(config, proxy)) :]
    new = len(true.classes) + proxy.labels_of(kept)
    return np.concatenate([images, proxy.images[kept]]), np.concatenate([labels, new])


def image_batch(config: TrialConfig, images: int, set_images: int) -> int:
    """Return how many of a proxy's images a step of the distillation takes, scaled to its share of its set."""
    distilling = distill_config(config)
    return lengths.scaled_batch(distilling.batch_size, distilling.batch_of, images, set_images)
