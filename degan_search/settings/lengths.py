"""Batch sizes and numbers of steps: of the GAN, of a trial's distillation, and of its probes."""

from __future__ import annotations

from degan_search.settings.methods import METHODS
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.trial import DistillConfig, GanConfig, TrialConfig
from degan_search.system.errors import UserError


def gan_lengths(config: GanConfig, images: int, set_images: int) -> tuple[int, int]:
    """Return batch size and number of steps for a proxy of `images` out of a set of `set_images`.

    With `batch_of: set` the batch is the subset's share of `batch_size`: 2048 of CIFAR-100 leaves 1843
    images of 90 classes, and 200 epochs are 5,000 steps whatever the subset.

    Raises:
        UserError: fewer images than a batch.
    """
    size = scaled_batch(config.batch_size, config.batch_of, images, set_images)
    if images < size:
        raise UserError(f"the proxy has {images} images, fewer than gan.batch_size = {size}; lower gan.batch_size")
    return size, config.steps or config.epochs * -(-images // size)


def mosaic_steps(config: MosaicConfig, images: int) -> int:
    """Return the number of the generator's steps in MosaicKD, for a proxy of `images`."""
    return config.steps or config.epochs * -(-images // config.batch_size)


def scaled_batch(batch_size: int, batch_of: str, images: int, set_images: int) -> int:
    """Return the batch size, at least 2: for `set` the images' share of it, as class filtering leaves of a batch."""
    return max(2, round(batch_size * images / set_images)) if batch_of == "set" else batch_size


PROBE_SETTINGS = {"optimiser": "adam", "augment": False, "weight_decay": 0.0, "mix_proxy": 0.0}
"""Settings of every probe, whatever the trial's profile, so that its score depends on the generator alone."""


RELEASED_ZSKD = {"batch_size": 64, "batch_of": "used", "augment": True}
"""Settings of the student that learns from ZSKD's images as its authors' code trains it."""


def distill_config(config: TrialConfig) -> DistillConfig:
    """Return a trial's settings of distillation: from a generator, or as the released code distils from images."""
    method = METHODS[config.method]
    if method.from_generators or method.matched:
        return config.distill
    released = method.source == "zskd" and config.zskd.profile == "released"
    return config.distill_images.model_copy(update=RELEASED_ZSKD) if released else config.distill_images


def probe_config(config: TrialConfig) -> DistillConfig:
    """Return the settings of distillation in a trial's probes."""
    probe = config.probe
    own = {"steps": probe.steps, "batch_size": probe.batch_size, "lr": probe.lr, "steps_per_epoch": probe.steps}
    return config.distill.model_copy(update=PROBE_SETTINGS | own)
