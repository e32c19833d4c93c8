"""The table of a GAN's losses: what a step returns, what its progress tells and what the ledger's curves hold."""

from __future__ import annotations

from typing import TypedDict


class GanLosses(TypedDict, total=False):
    """The losses of a GAN step, in nats; absent, null or NaN where one has no part in the training.

    A loss is entered here, once: the step, its progress and the ledger take names and order from this class.
    """

    d_loss: float | None
    """The discriminator's (equations 2, 3 and 6 of the paper)."""
    g_loss: float | None
    """What the generator minimises: the weighted sum of the following (equation 7)."""
    adversarial: float | None
    """The generator's against the discriminator."""
    entropy: float | None
    """Mean entropy of the teacher's output for an image (equation 4)."""
    diversity: float | None
    """Entropy of the teacher's mean output (equation 5)."""
    divergence: float | None
    """Of a student beside it from the teacher, for `lambda_s`."""
    bn_loss: float | None
    """Distance to the teacher's BatchNorm statistics, for `lambda_bn`."""


GAN_LOSSES = tuple(GanLosses.__annotations__)
"""Their names."""
