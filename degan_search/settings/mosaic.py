"""Settings of MosaicKD (Fang et al. 2021); the defaults are its released code's, as it is called for CIFAR-100."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from degan_search.settings.values import Count, Model, Momentum, Rate, Weight


class MosaicConfig(Model):
    """The weights of its generator's losses (0 turns one off), its lengths and its rates.

    The generator's width, latent and size are `gan`'s; its discriminator of patches has twice its width. All rates fall
    to 0 along a half cosine.
    """

    local: Weight = 1.0
    """Of what the discriminator says, summed over the patches of an image."""
    align: Weight = 1.0
    """Of the mean entropy of the teacher's outputs, in nats."""
    adversary: Weight = 1.0
    """Of the divergence between teacher and student, in nats, which the generator seeks."""
    balance: Weight = 10.0
    """Of the entropy of the teacher's mean output, in bits, which the generator seeks."""
    batch_size: Annotated[int, Field(ge=2, le=2**15)] = 256
    """Proxy images, and as many generated ones: the student learns from both together."""
    steps: Count | None = None
    """Steps of the generator; None: `epochs` passes over the proxy images."""
    epochs: Count = 200
    student_steps: Count = 5
    """Steps of the student after each of the generator's."""
    lr: Rate = 1e-3
    """Adam's, for generator and discriminator."""
    beta1: Momentum = 0.5
    beta2: Momentum = 0.999
    student_lr: Rate = 0.1
    """The student is trained by SGD."""
    momentum: Momentum = 0.9
    weight_decay: Weight = 1e-4
    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    augment: bool = True
    """Random crops and flips of the proxy images that the student learns from; the generated ones stay as they are."""
