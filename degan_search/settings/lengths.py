"""How a trial distils, and how its probes do."""

from __future__ import annotations

from degan_search.settings.methods import METHODS
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


def scaled_batch(batch_size: int, batch_of: str, images: int, set_images: int) -> int:
    """Return the batch left after class filtering: 2 at least."""
    return max(2, round(batch_size * images / set_images)) if batch_of == "set" else batch_size


PLAIN = {"optimiser": "adam", "augment": False, "weight_decay": 0.0, "mix_proxy": 0.0}
"""How a probe distils, whatever the trial's profile: it looks at the generator alone."""


def distill_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial distils: as from a generator, or as the released code does from images."""
    method = METHODS[config.method]
    return config.distill if method.generates or method.matched else config.distill_images


def probe_config(config: TrialConfig) -> DistillConfig:
    """Return how this trial's probes distil."""
    probe = config.probe
    own = {"steps": probe.steps, "batch_size": probe.batch_size, "lr": probe.lr, "steps_per_epoch": probe.steps}
    return config.distill.model_copy(update=PLAIN | own)
