"""The losses of a GAN's step by name: the step, its progress, a trial's events and the ledger take them from here."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class GanLosses:
    """The value of each loss, None where none was measured, NaN where it has no part in the training.

    The order is that of the ledger's columns. A new loss is entered here, once.
    """

    d_loss: float | None = None
    """The discriminator's loss (equations 2, 3, 6)."""
    g_loss: float | None = None
    """The generator's whole loss (equation 7), with what `lambda_s` and `lambda_bn` add."""
    adversarial: float | None = None
    """The discriminator's part in the generator's loss."""
    entropy: float | None = None
    """Mean entropy of the teacher's output for each generated image (equation 4), in nats."""
    diversity: float | None = None
    """Entropy of the teacher's mean output over a batch (equation 5), in nats."""
    divergence: float | None = None
    """Kullback-Leibler divergence of the rival student's outputs from the teacher's (`lambda_s`), in nats."""
    bn_loss: float | None = None
    """Distance to the statistics that the teacher's BatchNorm layers keep (`lambda_bn`)."""


GAN_LOSSES = tuple(field.name for field in fields(GanLosses))
"""Their names, in the order in which a step returns them."""
