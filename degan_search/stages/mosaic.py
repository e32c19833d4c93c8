"""MosaicKD: generator, discriminator of patches and student are trained together (Fang et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
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
Images = Float[Tensor, "n c h w"]
Noise = Float[Tensor, "n latent"]


class Players:
    """The networks that are trained, with their optimisers, and the frozen teacher.

    All are in train mode throughout: the generator's images for the student, too, are of the batch's statistics.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        generator: nn.Module,
        discriminator: nn.Module,
        config: MosaicConfig,
        rounds: int,
        context: Context,
    ) -> None:
        """Take untrained networks on the device; all rates fall to 0 in `rounds` calls of `lower_rates`."""
        self.student, self.teacher, self.generator, self.discriminator = student, teacher, generator, discriminator
        self.config, self.context = config, context
        self.networks = {"generator": generator, "discriminator": discriminator, "student": student}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "generator": _adam(generator, config),
            "discriminator": _adam(discriminator, config),
            "student": torch.optim.SGD(
                student.parameters(), config.student_lr, config.momentum, weight_decay=config.weight_decay, fused=True
            ),
        }
        self.schedules = {name: CosineAnnealingLR(own, rounds) for name, own in self.optimisers.items()}
        for network in self.networks.values():
            network.train()

    def generator_step(self, real: Images, z: Noise) -> Tensor:
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

    def student_step(self, z: Noise, real: Images) -> Tensor:
        """Distil once on generated and on proxy images together; returns the loss before."""
        with self.context.arithmetic():
            with torch.no_grad():
                images = torch.cat([resized(self.generator(z), (real.shape[2], real.shape[3])), real])
                known = self.teacher(images)
            loss = distillation_loss(self.student(images), known, self.config.temperature)
            self._update("student", loss)
        return loss.detach()

    def lower_rates(self) -> None:
        """Go on along the half cosine."""
        for schedule in self.schedules.values():
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the networks, their optimisers and their schedules."""
        return {kind: {name: own.state_dict() for name, own in parts.items()} for kind, parts in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a returned state back, in place."""
        for kind, parts in self._parts().items():
            for name, own in parts.items():
                own.load_state_dict(state[kind][name])

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {"networks": self.networks, "optimisers": self.optimisers, "schedules": self.schedules}

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimisers[name].step()


class Mosaic:
    """The training of a student beside the generator of its images, as MosaicKD's released code does it.

    A step is one of the discriminator, one of the generator, then `student_steps` of the student. The student ends in
    eval mode with its last weights: none are chosen.
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
        self.config, self.latent, self.proxy, self.shown = config, gan.latent, proxy, learned
        self.student, self.rounds = student, mosaic_steps(config, len(proxy))
        self.generator, discriminator = untrained(gan, proxy.shape[1:], context)
        self.players = Players(student, teacher, self.generator, discriminator, config, self.rounds, context)
        names = ("images", "noise", "proxy images", "augment", "dropout")
        self.streams = {name: context.generator(STAGE, name) for name in names}
        self.orders = {
            name: IndexBatches(len(own), config.batch_size, self.streams[name])
            for name, own in {"images": proxy, "proxy images": learned}.items()
        }
        draw_from(student, self.streams["dropout"])
        self.steps_done = 0
        self.watch: Callable[[], dict[str, float]] = dict
        """What it returns is reported beside the losses."""
        self.losses: dict[str, float] = {}
        """Those of the generator's last step that was reported, by the names of `GAN_LOSSES`."""

    @property
    def done(self) -> bool:
        """Whether the student has its final weights."""
        return self.steps_done == self.rounds

    @property
    def learned(self) -> nn.Module:
        """The student as it would be if training ended now."""
        return self.student

    @property
    def steps_reported(self) -> int:
        """Steps of the generator so far."""
        return self.steps_done

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
        losses = self.players.generator_step(real, self._noise())
        for _ in range(self.config.student_steps):
            loss = self.players.student_step(self._noise(), self._proxy_images())
        self.players.lower_rates()
        self.steps_done += 1
        if self.done:
            self._end()
        if self.steps_done % max(1, self.rounds // REPORTS) and not self.done:
            return None
        return self._progress(losses, float(loss))

    def state_dict(self) -> dict[str, Any]:
        """Return the networks with all that trains them, the batches, the random streams, and the count of steps."""
        return {
            "steps_done": self.steps_done,
            "losses": self.losses,
            "players": self.players.state_dict(),
            "orders": {name: own.state_dict() for name, own in self.orders.items()},
            "streams": {name: own.get_state() for name, own in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps_done, self.losses = state["steps_done"], state["losses"]
        self.players.load_state_dict(state["players"])
        for name, order in self.orders.items():
            order.load_state_dict(state["orders"][name])
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        if self.done:
            self._end()

    def _noise(self) -> Noise:
        rng = self.streams["noise"]
        return torch.randn(self.config.batch_size, self.latent, generator=rng, device=rng.device)

    def _proxy_images(self) -> Images:
        images = normalise(self.shown[next(self.orders["proxy images"])])
        return augment(images, self.streams["augment"]) if self.config.augment else images

    def _progress(self, losses: Tensor, student_loss: float) -> Progress:
        *values, spread = losses.tolist()
        self.losses = dict(zip(GAN_LOSSES, values, strict=True))
        check(GanProgress(self.steps_done, self.rounds, self.losses, spread), stage=STAGE)
        check_loss(student_loss, STAGE, self.steps_done)
        return Progress(STAGE, self.steps_done, self.rounds, math.nan, student_loss, self.losses | self.watch())

    def _end(self) -> None:
        draw_from(self.student, None)
        for network in self.players.networks.values():
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
