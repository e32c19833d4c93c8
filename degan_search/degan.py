"""DeGAN: a DCGAN on proxy images whose generator also obeys the frozen classifier (section 4.2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search import runtime
from degan_search.batchnorm import distances, watched
from degan_search.capture import Accelerate, Step, accelerated
from degan_search.checkpoint import Parts, Stateful, Values
from degan_search.config import DistillConfig, GanConfig
from degan_search.data.images import normalise
from degan_search.errors import UserError
from degan_search.fit import DivergedError, optimiser, reports
from degan_search.losses import (
    degan_generator_loss,
    discriminator_loss,
    distillation_loss,
    divergence_loss,
    generator_loss,
)
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.layers import draw_from
from degan_search.records import GAN_LOSSES
from degan_search.sources import IndexBatches

COLLAPSED = 1e-3
"""Mean standard deviation over images, of pixels in [-1, 1], below which they are all one image."""


@dataclass(frozen=True)
class GanProgress:
    """The losses of the last step, each NaN where it has no part in the training.

    Entropy, diversity and divergence are in nats. `spread` is the standard deviation over the batch's images,
    averaged over pixels.
    """

    step: int
    of: int
    d_loss: float
    g_loss: float
    adversarial: float
    entropy: float
    diversity: float
    divergence: float
    bn_loss: float
    spread: float


@dataclass
class Rival:
    """The student that `lambda_s` sets the generator against; trained beside it, and not used for anything else."""

    student: nn.Module
    optimiser: torch.optim.Optimizer
    temperature: float

    def step(self, images: Tensor, teacher_logits: Tensor) -> None:
        """Distil once on generated images, without a gradient for the generator."""
        self.optimiser.zero_grad()
        loss = distillation_loss(self.student(images.detach()), teacher_logits, self.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


@dataclass
class Gan:
    """The networks with their optimisers, and the frozen classifier beside them."""

    config: GanConfig
    generator: nn.Module
    adam_g: torch.optim.Optimizer
    teacher: nn.Module
    discriminator: nn.Module | None = None
    """None: the classifier's losses alone teach the generator (Figure 1a of the paper)."""
    adam_d: torch.optim.Optimizer | None = None
    rival: Rival | None = None
    precision: runtime.Precision = "float32"

    def parts(self) -> dict[str, Stateful]:
        """Return the networks that are trained, and their optimisers, by name."""
        parts: dict[str, Stateful] = {"generator": self.generator, "adam_g": self.adam_g}
        if self.discriminator is not None and self.adam_d is not None:
            parts |= {"discriminator": self.discriminator, "adam_d": self.adam_d}
        if self.rival is not None:
            parts |= {"rival": self.rival.student, "rival_optimiser": self.rival.optimiser}
        return parts

    def step(self, real: Float[Tensor, "n c h w"], z: Float[Tensor, "n latent 1 1"]) -> Tensor:
        """Update the discriminator, then the generator, on one batch (equations 2 to 7).

        The generator's adversarial loss is the released code's non-saturating form. The classifier has no
        parameter gradients, and discriminator and rival none in the generator's pass: nobody would use them.

        Args:
            real: proxy images in [-1, 1].
            z: standard normal noise, as many as real images.

        Returns:
            Tensor of 8, detached: `GAN_LOSSES` in their order, then the spread of the generator's images.
        """
        with runtime.arithmetic(self.precision, str(z.device)):
            return self._step(real, z)

    def accelerated(self, accelerate: Accelerate) -> Step:
        """Return `step` as it is run; not recorded with TorchScript or with a rival, whose dropout draws for itself."""
        if self.rival or isinstance(self.teacher, torch.jit.ScriptModule):
            return self.step
        trained = [part for part in self.parts().values() if isinstance(part, nn.Module | torch.optim.Optimizer)]
        return accelerated(self.step, trained, accelerate)

    def _step(self, real: Tensor, z: Tensor) -> Tensor:
        fake = self.generator(z)
        d_loss = self._discriminator_step(real, fake.detach())
        others = [model for model in (self.discriminator, self.rival and self.rival.student) if model]
        losses = self._generator_losses(fake) | {"d_loss": d_loss}
        self.adam_g.zero_grad()
        losses["g_loss"].backward()  # type: ignore[no-untyped-call]
        self.adam_g.step()
        for model in others:
            model.requires_grad_(True)
        return torch.stack([*(losses[name] for name in GAN_LOSSES), fake.float().std(0).mean()]).detach()

    def _discriminator_step(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.discriminator is None or self.adam_d is None:
            return _nothing(fake)
        self.adam_d.zero_grad()
        loss = discriminator_loss(self.discriminator(real), self.discriminator(fake))
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam_d.step()
        return loss

    def _generator_losses(self, fake: Tensor) -> dict[str, Tensor]:
        """Return the generator's of `GAN_LOSSES` by name, NaN for those that have no part."""
        config, losses = self.config, dict.fromkeys(GAN_LOSSES, _nothing(fake))
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        fake_logits = None if self.discriminator is None else self.discriminator(fake)
        if not any((config.lambda_e, config.lambda_d, config.lambda_s, config.lambda_bn)) and fake_logits is not None:
            adversarial = generator_loss(fake_logits)  # the DCGAN ablation needs no classifier
            return losses | {"g_loss": adversarial, "adversarial": adversarial}
        with ExitStack() as stack:
            sums = stack.enter_context(watched(self.teacher)) if config.lambda_bn else {}
            class_logits = self.teacher(fake)
        found = degan_generator_loss(fake_logits, class_logits, config.lambda_e, config.lambda_d)
        losses |= {"adversarial": found.adversarial, "entropy": found.entropy, "diversity": found.diversity}
        total = found.total
        if self.rival:
            self.rival.step(fake, class_logits)
            self.rival.student.requires_grad_(False)
            losses["divergence"] = divergence_loss(self.rival.student(fake), class_logits)
            total = total - config.lambda_s * losses["divergence"]
        if config.lambda_bn:
            losses["bn_loss"] = distances(sums).mean()
            total = total + config.lambda_bn * losses["bn_loss"]
        return losses | {"g_loss": total}


def _nothing(fake: Tensor) -> Tensor:
    """Return the NaN that stands for a loss that has no part in the training."""
    return torch.full((), math.nan, device=fake.device, dtype=torch.promote_types(fake.dtype, torch.float32))


def build(
    config: GanConfig,
    channels: int,
    teacher: nn.Module,
    seed: int,
    device: str,
    adversarial: bool = True,
    student: tuple[nn.Module, DistillConfig] | None = None,
    precision: runtime.Precision = "float32",
) -> Gan:
    """Return the untrained networks and their optimisers, their weights from the seed's own streams.

    Args:
        config: sizes, rates and weights.
        channels: of the images, 1 or 3.
        teacher: frozen.
        seed: of the weights.
        device: where it will run; `teacher` and `student` are there already.
        adversarial: whether there is a discriminator.
        student: for `lambda_s`, which needs it: an untrained one, and how it is distilled.
        precision: of the steps.
    """
    with runtime.seeded(seed, "gan", "generator"):
        generator = build_generator(channels, config.width, config.latent)
    gan = Gan(config, *_with_adam(generator, config, device), teacher, precision=precision)
    if adversarial:
        with runtime.seeded(seed, "gan", "discriminator"):
            discriminator = build_discriminator(channels, config.width)
        gan.discriminator, gan.adam_d = _with_adam(discriminator, config, device)
    if config.lambda_s:
        assert student is not None, "lambda_s needs a student"
        model, distilling = student
        gan.rival = Rival(model, optimiser(distilling, model.parameters()), distilling.temperature)
    return gan


def _with_adam(model: nn.Module, config: GanConfig, device: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    model.to(device).to(memory_format=torch.channels_last)
    betas = (config.beta1, config.beta2)
    return model, torch.optim.Adam(model.parameters(), lr=config.lr, betas=betas, fused=True)


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


def train_steps(
    gan: Gan,
    config: GanConfig,
    proxy: UInt8[Tensor, "n c h w"],
    set_images: int,
    seed: int,
    report_at: tuple[int, ...] = (),
    parts: Parts | None = None,
    accelerate: Accelerate = "none",
) -> Iterator[GanProgress | None]:
    """Train a DeGAN in place, yielding after each step; progress at those of `report_at`, each 2% and the last.

    What it needs to go on later is added to `parts`. A step is run as `accelerate` says.

    Raises:
        DivergedError: a loss is not finite, or the generator makes one image only.
    """
    size, steps = lengths(config, len(proxy), set_images)
    device = str(proxy.device)
    parts = parts or Parts()
    rng = parts.stream("rng", runtime.generator(seed, "gan", "images", device=device))
    indices = parts.add("order", IndexBatches(len(proxy), size, rng))
    noise = parts.stream("noise", runtime.generator(seed, "gan", "noise", device=device))
    for name, part in gan.parts().items():
        parts.add(name, part)
        if isinstance(part, nn.Module):
            part.train()
    run_step = gan.accelerated(accelerate)
    every, now = max(1, steps // 50), parts.add("now", Values(step=0))
    dropout = parts.stream("dropout", runtime.generator(seed, "gan", "dropout", device=device))
    if gan.rival:
        draw_from(gan.rival.student, dropout)
    for step in range(now.step + 1, steps + 1):
        real = normalise(proxy[next(indices)]).contiguous(memory_format=torch.channels_last)
        losses = run_step(real, torch.randn(len(real), config.latent, 1, 1, generator=noise, device=device))
        if step % every == 0 or step == steps or step in report_at:
            progress = GanProgress(step, steps, *losses.tolist())
            check(progress, gan.discriminator is not None)
            now.step = step
            yield progress
        else:
            yield None


train = reports(train_steps)


def check(progress: GanProgress, adversarial: bool = True) -> None:
    """Refuse losses that are not finite (the discriminator's too, if there is one), and one image only.

    Raises:
        DivergedError: says what is wrong.
    """
    if not ((math.isfinite(progress.d_loss) or not adversarial) and math.isfinite(progress.g_loss)):
        raise DivergedError(
            f"gan: loss is not finite at step {progress.step} "
            f"(discriminator {progress.d_loss}, generator {progress.g_loss})"
        )
    if not progress.spread > COLLAPSED:
        raise DivergedError(
            f"gan: the generator makes one image only at step {progress.step} (spread {progress.spread:.1e})"
        )
