"""DeGAN: a DCGAN on proxy images whose generator also obeys the frozen classifier (section 4.2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degan_search.networks.batch_statistics import distances, gathered_statistics
from degan_search.networks.dcgan import build_discriminator, build_generator
from degan_search.networks.layers import channels_last
from degan_search.networks.own import scripted
from degan_search.settings.gan_losses import GAN_LOSSES
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.system import device
from degan_search.training.context import Context
from degan_search.training.cuda_graph import Accelerate, Step, accelerated
from degan_search.training.loop import optimiser
from degan_search.training.losses import (
    degan_generator_loss,
    discriminator_loss,
    distillation_loss,
    divergence_loss,
    generator_loss,
)


@dataclass
class Rival:
    """The student of `lambda_s`: the generator seeks images on which it differs from the teacher.

    It is trained beside the generator, and used for nothing else.
    """

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
    """The networks that are trained, their optimisers, and the frozen classifier."""

    config: GanConfig
    generator: nn.Module
    adam_g: torch.optim.Optimizer
    teacher: nn.Module
    discriminator: nn.Module | None = None
    """None: the classifier's losses alone teach the generator (Figure 1a of the paper)."""
    adam_d: torch.optim.Optimizer | None = None
    rival: Rival | None = None
    precision: device.Precision = "float32"

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that are trained, by name."""
        rival = self.rival.student if self.rival else None
        every = {"generator": self.generator, "discriminator": self.discriminator, "rival": rival}
        return {name: network for name, network in every.items() if network is not None}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return their optimisers, by name."""
        rival = self.rival.optimiser if self.rival else None
        every = {"adam_g": self.adam_g, "adam_d": self.adam_d, "rival_optimiser": rival}
        return {name: own for name, own in every.items() if own is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the networks that are trained, and of their optimisers, by name."""
        networks = {name: network.state_dict() for name, network in self.networks().items()}
        return networks | {name: own.state_dict() for name, own in self.optimisers().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a returned state back, in place."""
        for name, network in self.networks().items():
            network.load_state_dict(state[name])
        for name, own in self.optimisers().items():
            own.load_state_dict(state[name])

    def step(
        self,
        real: Float[Tensor, "n c h w"],
        z: Float[Tensor, "n latent 1 1"],
        noise: Float[Tensor, "2 n c h w"] | None = None,
    ) -> Tensor:
        """Update the discriminator, then the generator, on one batch (equations 2 to 7).

        The generator's adversarial loss is the released code's non-saturating form. To save time, no gradients are
        computed for the classifier's weights, and in the generator's pass none for the discriminator's and rival's.

        Args:
            real: proxy images in [-1, 1].
            z: standard normal noise, as many as real images.
            noise: what is added to the real and the generated images before the discriminator sees them, if anything.

        Returns:
            Tensor of 8, detached: `GAN_LOSSES` in their order, then the spread of the generator's images.
        """
        with device.arithmetic(self.precision, str(z.device)):
            return self._step(real, z, noise)

    def accelerated(self, accelerate: Accelerate) -> Step:
        """Return the function that runs `step`, recorded as a CUDA graph if that is asked for and can be.

        It cannot with TorchScript, nor with a rival, as its dropout draws random numbers within the step.
        """
        if self.rival or scripted(self.teacher):
            return self.step
        return accelerated(self.step, [*self.networks().values(), *self.optimisers().values()], accelerate)

    def _step(self, real: Tensor, z: Tensor, noise: Tensor | None) -> Tensor:
        fake = self.generator(z)
        seen = fake if noise is None else fake + noise[1]
        d_loss = self._discriminator_step(real if noise is None else real + noise[0], seen.detach())
        others = [model for model in (self.discriminator, self.rival and self.rival.student) if model]
        losses = self._generator_losses(fake, seen) | {"d_loss": d_loss}
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

    def _generator_losses(self, fake: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the generator's losses by the names of `GAN_LOSSES`, NaN for those that have no part in training.

        `seen` are the images as the discriminator sees them.
        """
        config, losses = self.config, dict.fromkeys(GAN_LOSSES, _nothing(fake))
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        fake_logits = None if self.discriminator is None else self.discriminator(seen)
        if not any((config.lambda_e, config.lambda_d, config.lambda_s, config.lambda_bn)) and fake_logits is not None:
            adversarial = generator_loss(fake_logits)  # a plain DCGAN: the classifier need not be run
            return losses | {"g_loss": adversarial, "adversarial": adversarial}
        with ExitStack() as stack:
            sums = stack.enter_context(gathered_statistics(self.teacher)) if config.lambda_bn else {}
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
    """Return NaN, the value of a loss that has no part in the training."""
    return torch.full((), math.nan, device=fake.device, dtype=torch.promote_types(fake.dtype, torch.float32))


def build(
    config: GanConfig,
    shape: Sequence[int],
    teacher: nn.Module,
    context: Context,
    adversarial: bool = True,
    student: tuple[nn.Module, DistillConfig] | None = None,
    adam: Callable[[nn.Module, GanConfig], torch.optim.Optimizer] | None = None,
) -> Gan:
    """Return the untrained networks and their optimisers; each network's weights have a random stream of their own.

    Args:
        config: sizes, rates and weights.
        shape: of the images: channels, then height and width, which are equal.
        teacher: frozen.
        context: the seed of the weights, the precision of the steps, and the device, on which `teacher` and `student`
            lie already.
        adversarial: whether there is a discriminator.
        student: an untrained student and how it is distilled; `lambda_s` needs it.
        adam: makes the optimisers of generator and discriminator, in place of Adam with the settings' rates.
    """
    adam = adam or _adam
    generator = untrained_generator(config, shape, context)
    gan = Gan(config, generator, adam(generator, config), teacher, precision=context.precision)
    if adversarial:
        with context.seeded("gan", "discriminator"):
            discriminator = build_discriminator(shape[0], config.width, shape[1])
        gan.discriminator = _placed(discriminator, context)
        gan.adam_d = adam(gan.discriminator, config)
    if config.lambda_s:
        assert student is not None, "lambda_s needs a student"
        model, distilling = student
        gan.rival = Rival(model, optimiser(distilling, model.parameters()), distilling.temperature)
    return gan


def untrained_generator(config: GanConfig, shape: Sequence[int], context: Context) -> nn.Module:
    """Return the generator as training begins with it, on the device."""
    with context.seeded("gan", "generator"):
        generator = build_generator(shape[0], config.width, config.latent, shape[1])
    return _placed(generator, context)


def _placed(model: nn.Module, context: Context) -> nn.Module:
    channels_last(model.to(context.device))
    return model


def _adam(model: nn.Module, config: GanConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
