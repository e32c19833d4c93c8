"""A DeGAN step with an AlexNet teacher: the released procedure, ours in float32 and in bf16, ours without single parts.

A step includes preparing its images: one by one from PIL in the released procedure, all at once by index in ours.
Weights and images are random, which changes no time. The released procedure runs in a process of its own with torch's
default settings.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks import reference
from benchmarks.measure import Apart, Figures, arguments, interleaved
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import GanConfig
from degan_search.stages.gan import Gan, build
from degan_search.stages.gan_training import GanTraining
from degan_search.system import device, seeds
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context

IMAGES, CLASSES = 2000, 10
Change = Callable[[Gan], None]


def released(config: GanConfig, teacher: nn.Module, images: np.ndarray, whole: bool) -> Callable[[], object]:
    """Return the released procedure's next step; not `whole`: its images alone."""
    order = IndexBatches(len(images), config.batch_size, seeds.generator(0, "images"))
    gan = build(config, (3, 32, 32), teacher, Context(0))
    assert gan.discriminator is not None
    generator, discriminator = reference.plain(gan.generator), reference.plain(gan.discriminator)
    batches, noise = reference.real_batches(images, order), seeds.generator(0, "noise")
    theirs = reference.Gan(config, generator, discriminator, reference.plain(teacher))

    def step() -> object:
        real = next(batches)
        return theirs.step(real, torch.randn(len(real), config.latent, 1, 1, generator=noise)) if whole else real

    return step


def ours(
    config: GanConfig,
    teacher: nn.Module,
    images: np.ndarray,
    precision: device.Precision,
    change: Change | None = None,
) -> Callable[[], object]:
    """Return our training's next step, after a change of the GAN."""
    context = Context(0, precision=precision)
    gan = build(config, (3, 32, 32), teacher, context)
    if change:
        change(gan)
    every = tuple(range(1, 1000))  # each step is reported, so that its time includes computing the losses
    return GanTraining(gan, torch.from_numpy(images), len(images), context, every).step


def teacher_gradients(gan: Gan) -> None:
    """Compute the gradients of the teacher's parameters too, which are not needed."""
    gan.teacher.requires_grad_(True)


def stock_norms(gan: Gan) -> None:
    """Take torch's own LocalResponseNorm."""
    gan.teacher = reference.with_stock_norms(gan.teacher)


def contiguous(gan: Gan) -> None:
    """Take contiguous weights and images."""
    for model in (gan.generator, gan.discriminator, gan.teacher):
        assert model is not None
        model.to(memory_format=torch.contiguous_format)
    step = gan.step
    gan.step = lambda real, z, noise=None: step(real.contiguous(), z, noise)  # type: ignore[method-assign]


def plain_adam(gan: Gan) -> None:
    """Update one weight after the other."""
    config = gan.config
    assert gan.discriminator is not None
    gan.adam_g, gan.adam_d = (
        reference.adam(model, config.lr, config.beta1, config.beta2) for model in (gan.generator, gan.discriminator)
    )


WITHOUT: dict[str, Change] = {
    "frozen_teacher": teacher_gradients,
    "own_norms": stock_norms,
    "channels_last": contiguous,
    "fused_adam": plain_adam,
}


def main() -> None:
    """Time all cases alternately and print what they took."""
    options = arguments(__doc__, repetitions=5, threads=1, width=64, batch=128).parse_args()
    device.set_up_torch(options.threads)
    config = GanConfig(width=options.width, batch_size=options.batch, batch_of="used", steps=10**6)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), np.uint8)
    with seeds.seeded(0, "teacher"):
        teacher = build_classifier("alexnet", CLASSES).eval()

    def frozen() -> nn.Module:  # a new one for each case, as some cases change it
        return freeze(teacher, fold_norms=True)

    cases: dict[str, Callable[[], object]] = {
        "reference": Apart(released, config, teacher, images, True, threads=options.threads),
        "reference_images": Apart(released, config, teacher, images, False, threads=options.threads),
        "float32": ours(config, frozen(), images, "float32"),
        "bf16": ours(config, frozen(), images, "bf16"),
    }
    for name, change in WITHOUT.items():
        cases[f"float32_without_{name}"] = ours(config, frozen(), images, "float32", change)
    seconds = interleaved(cases, options.repetitions)
    figures = Figures()
    for name, values in seconds.items():
        figures.add(f"degan_step_{name}_seconds", median(values))
    for name in ("float32", "bf16"):
        figures.times(f"degan_step_{name}_times_faster", seconds["reference"], seconds[name])
    for name in cases:
        if "without" in name:
            figures.add(f"degan_step_{name}_times_slower", median(seconds[name]) / median(seconds["float32"]))
    figures.save(options.json)


if __name__ == "__main__":
    main()
