"""The training of a DeGAN step by step: batches, noise, what is reported, and what ends it early."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from degan_search.data.images import normalise
from degan_search.networks.layers import draw_from
from degan_search.settings.gan_losses import GAN_LOSSES
from degan_search.settings.lengths import gan_lengths
from degan_search.stages.gan import Gan
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.loop import DivergedError

COLLAPSED = 1e-3
"""Spread (see `GanProgress`) below which the generator is taken to make one image only."""
INSTANCE_NOISE, QUIET_SIZE = 0.3, 32
"""Deviation of `gan.instance_noise` where it is not said, and the images' size up to which it is 0 then."""
REPORTS = 50
"""Reports over the whole training, evenly spaced."""


@dataclass(frozen=True)
class GanProgress:
    """The losses of the last step, each NaN where it has no part in the training.

    Entropy, diversity and divergence are in nats. `spread` is the standard deviation over the batch's images,
    averaged over pixels.
    """

    step: int
    of: int
    losses: dict[str, float]
    """By the names of `GAN_LOSSES`."""
    spread: float


class GanTraining:
    """The training of a GAN in place on proxy images, as long as `gan_lengths` says."""

    def __init__(
        self,
        gan: Gan,
        proxy: UInt8[Tensor, "n c h w"],
        set_images: int,
        context: Context,
        report_at: tuple[int, ...] = (),
    ) -> None:
        """Begin with an untrained GAN.

        Args:
            gan: its networks are on the device.
            proxy: all proxy images, on the device.
            set_images: images of the proxy's set, before class filtering.
            context: the GAN's batches, noise and dropout have streams of their own.
            report_at: steps after which progress is reported, besides each 2% and the last.

        Raises:
            UserError: fewer proxy images than a batch.
        """
        self.gan, self.proxy, self.accelerate = gan, proxy, context.accelerate
        size, self.steps = gan_lengths(gan.config, len(proxy), set_images)
        self.report_at = report_at
        self.order_rng = context.generator("gan", "images")
        self.noise_rng = context.generator("gan", "noise")
        self.dropout_rng = context.generator("gan", "dropout")
        self.instance_rng = context.generator("gan", "instance noise")
        given, side = gan.config.instance_noise, max(proxy.shape[2:])
        self.instance_noise = given if given is not None else INSTANCE_NOISE * (side > QUIET_SIZE)
        self.order = IndexBatches(len(proxy), size, self.order_rng)
        for network in gan.networks().values():
            network.train()
        if gan.rival:
            draw_from(gan.rival.student, self.dropout_rng)
        self.steps_done = 0
        self.run_step = gan.accelerated(self.accelerate)

    @property
    def done(self) -> bool:
        """Whether all steps have been done."""
        return self.steps_done == self.steps

    def step(self) -> GanProgress | None:
        """Train on one batch; returns the progress after the steps that are reported.

        Raises:
            DivergedError: in a reported step a loss is not finite, or the generator makes one image only.
        """
        real = normalise(self.proxy[next(self.order)]).contiguous(memory_format=torch.channels_last)
        size, device = (len(real), self.gan.config.latent, 1, 1), real.device
        z = torch.randn(size, generator=self.noise_rng, device=device)
        losses = self.run_step(real, z, *self._instance_noise(real))
        self.steps_done += 1
        every = max(1, self.steps // REPORTS)
        if self.steps_done % every and not self.done and self.steps_done not in self.report_at:
            return None
        *values, spread = losses.tolist()
        progress = GanProgress(self.steps_done, self.steps, dict(zip(GAN_LOSSES, values, strict=True)), spread)
        check(progress, self.gan.discriminator is not None)
        return progress

    def _instance_noise(self, real: Tensor) -> tuple[Tensor, ...]:
        """Return the noise on the images that the discriminator sees in this step, if there is any."""
        deviation = self.instance_noise * (1 - self.steps_done / self.steps)
        if not deviation or self.gan.discriminator is None:
            return ()
        noise = torch.randn(2, *real.shape, generator=self.instance_rng, device=real.device)
        return (noise.mul_(deviation),)

    def state_dict(self) -> dict[str, Any]:
        """Return the networks with their optimisers, the count of steps, what is left of the pass, and the streams."""
        return {
            "steps_done": self.steps_done,
            "gan": self.gan.state_dict(),
            "order": self.order.state_dict(),
            "order_rng": self.order_rng.get_state(),
            "noise_rng": self.noise_rng.get_state(),
            "dropout_rng": self.dropout_rng.get_state(),
            "instance_rng": self.instance_rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps_done = state["steps_done"]
        self.gan.load_state_dict(state["gan"])
        self.order.load_state_dict(state["order"])
        self.order_rng.set_state(state["order_rng"])
        self.noise_rng.set_state(state["noise_rng"])
        self.dropout_rng.set_state(state["dropout_rng"])
        self.instance_rng.set_state(state["instance_rng"])
        self.run_step = self.gan.accelerated(self.accelerate)  # a recording would use the tensors from before loading


def check(progress: GanProgress, adversarial: bool = True, stage: str = "gan") -> None:
    """Refuse losses that are not finite (the discriminator's too, if there is one), and a generator of one image.

    Raises:
        DivergedError: says what is wrong.
    """
    d_loss, g_loss = progress.losses["d_loss"], progress.losses["g_loss"]
    if not ((math.isfinite(d_loss) or not adversarial) and math.isfinite(g_loss)):
        raise DivergedError(
            f"{stage}: loss is not finite at step {progress.step} (discriminator {d_loss}, generator {g_loss})"
        )
    if not progress.spread > COLLAPSED:
        raise DivergedError(
            f"{stage}: the generator makes one image only at step {progress.step} (spread {progress.spread:.1e})"
        )
