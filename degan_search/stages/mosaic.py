"""MosaicKD: generator, discriminator of patches and student are trained together (Fang et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from degan_search.data.images import augment, normalise
from degan_search.networks.front import resized
from degan_search.networks.layers import channels_last, draw_from
from degan_search.networks.mosaic import build_discriminator, build_generator
from degan_search.settings.gan_losses import GAN_LOSSES
from degan_search.settings.lengths import mosaic_steps
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.trial import GanConfig
from degan_search.stages.gan_training import REPORTS, GanProgress, check
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.loop import Progress, check_loss
from degan_search.training.losses import (
    distillation_loss,
    divergence_loss,
    diversity_loss,
    entropy_loss,
    generator_loss,
    patch_discriminator_loss,
)

STAGE = "mosaic"


class Mosaic:
    """The training of a student beside the generator of its images, as MosaicKD's released code does it.

    A step updates the discriminator, then the generator, on one batch, then the student `student_steps` times. The
    student ends in eval mode with its last weights, so nothing is chosen. All three networks are in train mode
    throughout: the generator's images for the student, too, are of the batch's statistics.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        proxy: UInt8[Tensor, "n c s s"],
        learned: UInt8[Tensor, "m c h w"],
        config: MosaicConfig,
        gan: GanConfig,
        context: Context,
    ) -> None:
        """Begin with untrained networks.

        Args:
            student: on the device.
            teacher: frozen, on the device; takes images in [-1, 1] of any size and gives logits.
            proxy: all proxy images in the generator's size, which is a multiple of 4, on the device: what the
                discriminator takes for real.
            learned: the proxy images that the student learns from, in the teacher's size, on the device.
            config: weights, lengths and rates.
            gan: width and latent of the generator.
            context: each network's weights, the batches, the noise, the augmentation and the dropout have streams of
                their own.
        """
        self.config, self.latent, self.context = config, gan.latent, context
        self.student, self.teacher, self.proxy, self.learned = student, teacher, proxy, learned
        self.generator, self.discriminator = untrained(gan, proxy.shape[1:], context)
        self.rounds = mosaic_steps(config, len(proxy))
        self.streams = {
            name: context.generator(STAGE, name) for name in ("images", "noise", "proxy images", "augment", "dropout")
        }
        self.orders = {
            "images": IndexBatches(len(proxy), config.batch_size, self.streams["images"]),
            "proxy images": IndexBatches(len(learned), config.batch_size, self.streams["proxy images"]),
        }
        self.networks = {"generator": self.generator, "discriminator": self.discriminator, "student": student}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "generator": _adam(self.generator, config),
            "discriminator": _adam(self.discriminator, config),
            "student": torch.optim.SGD(
                student.parameters(), config.student_lr, config.momentum, weight_decay=config.weight_decay, fused=True
            ),
        }
        self.schedules = {name: CosineAnnealingLR(own, self.rounds) for name, own in self.optimisers.items()}
        for network in self.networks.values():
            network.train()
        draw_from(student, self.streams["dropout"])
        self.steps_done = 0
        self.losses: dict[str, float] = {}
        """Those of the generator's last step that was reported, by the names of `GAN_LOSSES`."""

    @property
    def done(self) -> bool:
        """Whether the student has its final weights."""
        return self.steps_done == self.rounds

    @property
    def steps(self) -> int:
        """Steps of the student so far."""
        return self.steps_done * self.config.student_steps

    def step(self) -> Progress | None:
        """Do a step of the generator and those of the student after it; returns the progress about 50 times in all.

        Raises:
            DivergedError: in a reported step a loss is not finite, or the generator makes one image only.
        """
        real = normalise(self.proxy[next(self.orders["images"])]).contiguous(memory_format=torch.channels_last)
        losses = self._generator_step(real, self._noise())
        for _ in range(self.config.student_steps):
            loss = self._student_step(self._noise(), self._proxy_images())
        for schedule in self.schedules.values():
            schedule.step()
        self.steps_done += 1
        if self.done:
            self._end()
        if self.steps_done % max(1, self.rounds // REPORTS) and not self.done:
            return None
        return self._progress(losses, float(loss))

    def state_dict(self) -> dict[str, Any]:
        """Return the networks, their optimisers and schedules, the batches, the random streams, and the counts."""
        return {
            "steps_done": self.steps_done,
            "losses": self.losses,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimisers": {name: own.state_dict() for name, own in self.optimisers.items()},
            "schedules": {name: own.state_dict() for name, own in self.schedules.items()},
            "orders": {name: own.state_dict() for name, own in self.orders.items()},
            "streams": {name: own.get_state() for name, own in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps_done, self.losses = state["steps_done"], state["losses"]
        for part in ("networks", "optimisers", "schedules", "orders"):
            for name, own in getattr(self, part).items():
                own.load_state_dict(state[part][name])
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        if self.done:
            self._end()

    def _generator_step(self, real: Tensor, z: Tensor) -> Tensor:
        """Update the discriminator, then the generator; returns `GAN_LOSSES` in their order, then the images' spread.

        To save time, no gradients are computed for the discriminator's and the student's weights in the generator's
        pass; their BatchNorms' statistics move in it, as in the released code.
        """
        config, others = self.config, (self.discriminator, self.student)
        with self.context.arithmetic():
            fake = self.generator(z)
            seen = self.discriminator(fake.detach())
            d_loss = config.local * patch_discriminator_loss(self.discriminator(real), seen)
            self._update("discriminator", d_loss)
            for network in others:
                network.requires_grad_(False)
            class_logits = self.teacher(fake)
            divergence = divergence_loss(self.student(fake), class_logits)
            local = seen[0].numel() * generator_loss(self.discriminator(fake))
            entropy, diversity = entropy_loss(class_logits), diversity_loss(class_logits)
            g_loss = config.local * local + config.align * entropy - config.adversary * divergence
            g_loss = g_loss - config.balance / math.log(2) * diversity
            self._update("generator", g_loss)
            for network in others:
                network.requires_grad_(True)
        losses = dict.fromkeys(GAN_LOSSES, g_loss.new_full((), math.nan))
        losses |= {"d_loss": d_loss, "g_loss": g_loss, "adversarial": local}
        losses |= {"entropy": entropy, "diversity": diversity, "divergence": divergence}
        return torch.stack([*losses.values(), fake.float().std(0).mean()]).detach()

    def _student_step(self, z: Tensor, real: Tensor) -> Tensor:
        """Distil once on generated and on proxy images; returns the loss before."""
        with self.context.arithmetic():
            with torch.no_grad():
                images = torch.cat([resized(self.generator(z), (real.shape[2], real.shape[3])), real])
                known = self.teacher(images)
            loss = distillation_loss(self.student(images), known, self.config.temperature)
            self._update("student", loss)
        return loss.detach()

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[name].step()

    def _noise(self) -> Tensor:
        rng = self.streams["noise"]
        return torch.randn(self.config.batch_size, self.latent, generator=rng, device=rng.device)

    def _proxy_images(self) -> Tensor:
        images = normalise(self.learned[next(self.orders["proxy images"])])
        return augment(images, self.streams["augment"]) if self.config.augment else images

    def _progress(self, losses: Tensor, student_loss: float) -> Progress:
        *values, spread = losses.tolist()
        self.losses = dict(zip(GAN_LOSSES, values, strict=True))
        check(GanProgress(self.steps_done, self.rounds, self.losses, spread), stage=STAGE)
        check_loss(student_loss, STAGE, self.steps_done)
        return Progress(STAGE, self.steps_done, self.rounds, math.nan, student_loss, self.losses)

    def _end(self) -> None:
        draw_from(self.student, None)
        for network in self.networks.values():
            network.eval()


def untrained(gan: GanConfig, shape: Sequence[int], context: Context) -> tuple[nn.Module, nn.Module]:
    """Return generator and discriminator as training begins with them, on the device.

    `shape` is of the generator's images: channels, height and width, which are equal.
    """
    with context.seeded(STAGE, "generator"):
        generator = build_generator(shape[0], gan.width, gan.latent, shape[1])
    with context.seeded(STAGE, "discriminator"):
        discriminator = build_discriminator(shape[0], 2 * gan.width)
    return channels_last(generator.to(context.device)), channels_last(discriminator.to(context.device))


def _adam(model: nn.Module, config: MosaicConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
