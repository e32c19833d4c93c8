"""How long a sweep would take: a few timed steps, scaled to every trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from degan_search import degan, pipeline, runtime
from degan_search.config import TrialConfig
from degan_search.data import proxies
from degan_search.data.images import normalise
from degan_search.errors import UserError
from degan_search.losses import distillation_loss
from degan_search.networks.table import CLASSIFIERS, build_classifier
from degan_search.search.space import Space, cells

SAMPLE_BATCH = 16
REPEATS = 3


def sweep_seconds(space: Space, slots: int, data_dir: Path | None, device: str = "cpu") -> float:
    """Return the seconds that all trials would take if none stopped early, from timed steps on this machine.

    Steps are timed at a small batch and scaled with the batch. The teacher and, where patience alone ends
    distillation, its epochs are counted at their limit, so paper-sized spaces are upper bounds.
    """
    total = 0.0
    for cell in cells(space):
        runs = cell.trials() + (len(space.finals.seeds) if space.finals else 0)
        total += runs * trial_seconds(cell.example(), data_dir, device)
    return total / slots


def trial_seconds(config: TrialConfig, data_dir: Path | None, device: str = "cpu") -> float:
    """Return the seconds that one trial would take, from timed steps."""
    runtime.set_up_torch(1)
    channels = CLASSIFIERS[config.teacher.network].channels
    teacher = build_classifier(config.teacher.network, 10, config.teacher.width).to(device).eval().requires_grad_(False)
    student = build_classifier(config.student.network, 10, config.student.width, channels).to(device)
    images = torch.randint(0, 256, (SAMPLE_BATCH, channels, 32, 32), dtype=torch.uint8, device=device)
    method = pipeline.METHODS[config.method]
    distilling = pipeline.distill_config(config)
    seconds = 0.0
    try:
        whole = proxies.parent_size(config.proxy, data_dir)
    except UserError:  # images that are not there yet: the paper's sets all have about this many
        whole = 50_000
    count = config.count or whole
    gan_network = degan.build(config.gan, channels, teacher, 0, device)
    if method.images is None:
        real, z = normalise(images), torch.randn(SAMPLE_BATCH, config.gan.latent, 1, 1, device=device)
        batch, steps = degan.lengths(config.gan, count, count)
        seconds += steps * _seconds(lambda: gan_network.step(real, z)) * batch / SAMPLE_BATCH
    target = torch.randn(SAMPLE_BATCH, 10, device=device)

    def distil() -> None:
        distillation_loss(student(normalise(images)), target, 20.0).backward()  # type: ignore[no-untyped-call]

    epoch = distilling.steps_per_epoch or -(-count // distilling.batch_size)
    steps = distilling.steps or 2 * distilling.epochs * epoch
    per_image = _seconds(distil) / SAMPLE_BATCH
    probes = sum(config.probe.steps * config.probe.batch_size for _ in config.probe.at) if method.images is None else 0
    return seconds + per_image * (steps * distilling.batch_size + probes)


def _seconds(act: Callable[[], object]) -> float:
    act()
    begun = time.perf_counter()
    for _ in range(REPEATS):
        act()
    return (time.perf_counter() - begun) / REPEATS
