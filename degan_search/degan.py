"""DeGAN: a DCGAN on proxy images whose generator also obeys the frozen classifier (section 4.2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search import runtime
from degan_search.config import GanConfig
from degan_search.data.images import normalise
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.losses import GeneratorLoss, degan_generator_loss, discriminator_loss, generator_loss
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.sources import index_batches

COLLAPSED = 1e-3
"""Mean standard deviation over images, of pixels in [-1, 1], below which they are all one image."""


@dataclass(frozen=True)
class GanProgress:
    """The losses of the last step. Entropy and diversity are in nats, and NaN where the weights are 0.

    `spread` is the standard deviation over the batch's images, averaged over pixels.
    """

    step: int
    of: int
    d_loss: float
    g_loss: float
    adversarial: float
    entropy: float
    diversity: float
    spread: float


@dataclass
class Gan:
    """The two trained networks with their optimisers, and the frozen classifier beside them."""

    generator: nn.Module
    discriminator: nn.Module
    teacher: nn.Module
    adam_g: torch.optim.Optimizer
    adam_d: torch.optim.Optimizer
    lambda_e: float
    lambda_d: float

    def step(self, real: Float[Tensor, "n c h w"], z: Float[Tensor, "n latent 1 1"]) -> Tensor:
        """Update the discriminator, then the generator, on one batch (equations 2 to 7).

        The generator's adversarial loss is the released code's non-saturating form. The classifier has no
        parameter gradients, and the discriminator none in the generator's pass: nobody would use them.

        Args:
            real: proxy images in [-1, 1].
            z: standard normal noise, as many as real images.

        Returns:
            Tensor of 6, detached: d_loss, g_loss, adversarial, entropy, diversity, and the images' spread.
        """
        fake = self.generator(z)
        self.adam_d.zero_grad()
        d_loss = discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
        d_loss.backward()  # type: ignore[no-untyped-call]
        self.adam_d.step()

        self.discriminator.requires_grad_(False)
        self.adam_g.zero_grad()
        if self.lambda_e or self.lambda_d:
            losses = degan_generator_loss(self.discriminator(fake), self.teacher(fake), self.lambda_e, self.lambda_d)
        else:  # the DCGAN ablation needs no classifier
            adversarial = generator_loss(self.discriminator(fake))
            nothing = torch.full_like(adversarial, math.nan)
            losses = GeneratorLoss(adversarial, adversarial, nothing, nothing)
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.adam_g.step()
        self.discriminator.requires_grad_(True)
        return torch.stack([d_loss, *losses, fake.std(0).mean()]).detach()


def build(config: GanConfig, channels: int, teacher: nn.Module, seed: int, device: str) -> Gan:
    """Return the two untrained networks and their optimisers, their weights from the seed's own streams."""
    with runtime.seeded(seed, "gan", "generator"):
        generator = build_generator(channels, config.width, config.latent)
    with runtime.seeded(seed, "gan", "discriminator"):
        discriminator = build_discriminator(channels, config.width)
    for model in (generator, discriminator):
        model.to(device).to(memory_format=torch.channels_last)
    adam_g, adam_d = (
        torch.optim.Adam(model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
        for model in (generator, discriminator)
    )
    return Gan(generator, discriminator, teacher, adam_g, adam_d, config.lambda_e, config.lambda_d)


def lengths(config: GanConfig, images: int, set_images: int) -> tuple[int, int]:
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


def train(
    gan: Gan,
    config: GanConfig,
    proxy: UInt8[Tensor, "n c h w"],
    set_images: int,
    seed: int,
    report_at: tuple[int, ...] = (),
) -> Iterator[GanProgress]:
    """Train a DeGAN in place, yielding after each step of `report_at`, after each 2% and after the last.

    Raises:
        DivergedError: a loss is not finite, or the generator makes one image only.
    """
    size, steps = lengths(config, len(proxy), set_images)
    device = str(proxy.device)
    indices = index_batches(len(proxy), size, runtime.generator(seed, "gan", "images", device=device))
    noise = runtime.generator(seed, "gan", "noise", device=device)
    every = max(1, steps // 50)
    gan.generator.train()
    gan.discriminator.train()
    for step in range(1, steps + 1):
        real = normalise(proxy[next(indices)]).contiguous(memory_format=torch.channels_last)
        losses = gan.step(real, torch.randn(len(real), config.latent, 1, 1, generator=noise, device=device))
        if step % every == 0 or step == steps or step in report_at:
            progress = GanProgress(step, steps, *losses.tolist())
            _check(progress)
            yield progress


def _check(progress: GanProgress) -> None:
    if not (math.isfinite(progress.d_loss) and math.isfinite(progress.g_loss)):
        raise DivergedError(
            f"gan: loss is not finite at step {progress.step} "
            f"(discriminator {progress.d_loss}, generator {progress.g_loss})"
        )
    if not progress.spread > COLLAPSED:
        raise DivergedError(
            f"gan: the generator makes one image only at step {progress.step} (spread {progress.spread:.1e})"
        )
