"""How a trial distils, and how its probes do."""

from __future__ import annotations

from degan_search.config import DistillConfig, TrialConfig
from degan_search.methods import METHODS

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
