"""A DeGAN step with an AlexNet teacher: the released procedure, ours in float32 and in bf16, ours without single parts.

A step includes preparing its images: one by one from PIL in the released procedure, all at once by index in ours.
Weights and images are random, which changes no time. Each case runs in a process of its own, as a trial does: the
released procedure with torch's default settings, ours with those of a trial. That takes about 1 GB a case.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import nn

from benchmarks import reference
from benchmarks.measure import Apart, Figures, arguments, interleaved
from degan_search.networks import products
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
    """Return our training's next step, after a change of the GAN; sets up torch in this process."""
    device.set_up_torch(torch.get_num_threads())
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


def torchs_convolutions(_: Gan) -> None:
    """Compute no convolution as a matrix product, in this process."""
    products.SMALL = 0


WITHOUT: dict[str, tuple[device.Precision, Change]] = {
    "frozen_teacher": ("float32", teacher_gradients),
    "own_norms": ("float32", stock_norms),
    "channels_last": ("float32", contiguous),
    "fused_adam": ("float32", plain_adam),
    "products": ("bf16", torchs_convolutions),
}


def main() -> None:
    """Time all cases alternately and print what they took."""
    options = arguments(__doc__, repetitions=5, threads=1, width=64, batch=128).parse_args()
    config = GanConfig(width=options.width, batch_size=options.batch, batch_of="used", steps=10**6)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), np.uint8)
    with seeds.seeded(0, "teacher"):
        teacher = freeze(build_classifier("alexnet", CLASSES).eval(), fold_norms=True)

    def case(make: Callable[..., Callable[[], object]], *how: object) -> Apart:
        return Apart(make, config, teacher, images, *how, threads=options.threads)

    cases = {"reference": case(released, True), "reference_images": case(released, False)}
    for precision in ("float32", "bf16"):
        cases[precision] = case(ours, precision)
    for name, (precision, change) in WITHOUT.items():
        cases[f"{precision}_without_{name}"] = case(ours, precision, change)
    seconds = interleaved(cases, options.repetitions, warm_up=3)
    figures = Figures()
    for name, values in seconds.items():
        figures.add(f"degan_step_{name}_seconds", median(values))
    for name in ("float32", "bf16"):
        figures.times(f"degan_step_{name}_times_faster", seconds["reference"], seconds[name])
    for name, (precision, _) in WITHOUT.items():
        name = f"{precision}_without_{name}"
        figures.times(f"degan_step_{name}_times_slower", seconds[name], seconds[precision])
    figures.save(options.json)


if __name__ == "__main__":
    main()
