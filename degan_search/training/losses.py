"""The losses of DeGAN (equations 2 to 7 of the paper) and of distillation, on logits.

All are means over the batch, in nats, computed in float32 or better, and finite for any finite logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from degan_search.system.errors import UserError

Scalar = Float[Tensor, ""]
ICARL_OUTPUTS = 100
"""Outputs of iCaRL's network on CIFAR-100, whatever the classes seen so far."""


class GeneratorLoss(NamedTuple):
    """Equation 7 and its parts; `total` is what the generator minimises."""

    total: Scalar
    adversarial: Scalar
    entropy: Scalar
    diversity: Scalar


def discriminator_loss(real_logits: Float[Tensor, ...], fake_logits: Float[Tensor, ...]) -> Scalar:
    """Minus L_D (equations 2, 3, 6): binary cross-entropy, real to label 1 plus fake to label 0; >= 0.

    Logits of D, one for each image, any shape.
    """
    real = F.logsigmoid(_precise(real_logits)).mean()
    fake = F.logsigmoid(-_precise(fake_logits)).mean()
    return -real - fake


def patch_discriminator_loss(real_logits: Float[Tensor, "m 1 h w"], fake_logits: Float[Tensor, "n 1 h w"]) -> Scalar:
    """Binary cross-entropy of images' patches, real to label 1 and fake to label 0 (MosaicKD, Fang et al. 2021); >= 0.

    Summed over the patches and both kinds, then divided by 2n, as in the released code: in a short batch of real images
    each of these counts for no more.
    """
    real, fake = F.logsigmoid(_precise(real_logits)).sum(), F.logsigmoid(-_precise(fake_logits)).sum()
    return -(real + fake) / (2 * len(fake_logits))


def generator_loss(fake_logits: Float[Tensor, ...]) -> Scalar:
    """The generator's part of the game: binary cross-entropy of its images to label 1; >= 0.

    This is the non-saturating form that the released code uses; equation 3 has log(1 - D(G(z))).
    """
    return -F.logsigmoid(_precise(fake_logits)).mean()


def entropy_loss(logits: Float[Tensor, "n k"]) -> Scalar:
    """Mean entropy of each image's class distribution (equation 4), in [0, log K]."""
    log_y = F.log_softmax(_precise(logits), dim=1)
    return -(log_y.exp() * log_y).sum(dim=1).mean()


def diversity_loss(logits: Float[Tensor, "n k"]) -> Scalar:
    """Entropy of the batch's mean class distribution w (equations 1, 5), in [0, log K].

    The generator maximises it: equation 7 subtracts lambda_d times this.
    """
    log_y = F.log_softmax(_precise(logits), dim=1)
    log_w = torch.logsumexp(log_y, dim=0) - math.log(len(log_y))
    return -(log_w.exp() * log_w).sum()


def degan_generator_loss(
    fake_logits: Float[Tensor, ...] | None, class_logits: Float[Tensor, "n k"], lambda_e: float, lambda_d: float
) -> GeneratorLoss:
    """L_G = adversarial + lambda_e * entropy - lambda_d * diversity (equation 7), with its parts.

    `fake_logits` are D's, `class_logits` the classifier's, of the same generated images. With both lambdas 0
    the gradient is DCGAN's, bit for bit. Without D's (Figure 1a) the adversarial part is 0.
    """
    adversarial = class_logits.new_zeros(()) if fake_logits is None else generator_loss(fake_logits)
    entropy = entropy_loss(class_logits)
    diversity = diversity_loss(class_logits)
    total = adversarial + lambda_e * entropy - lambda_d * diversity
    return GeneratorLoss(total, adversarial, entropy, diversity)


def divergence_loss(student_logits: Float[Tensor, "n k"], teacher_logits: Float[Tensor, "n k"]) -> Scalar:
    """KL(softmax(teacher) || softmax(student)), mean over the batch, in nats; >= 0. The gradient reaches both.

    A generator that maximises it finds images that the student has yet to learn (MosaicKD, Fang et al. 2021).
    """
    student = F.log_softmax(_precise(student_logits), dim=1)
    teacher = F.log_softmax(_precise(teacher_logits), dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1).mean()


def distillation_loss(
    student_logits: Float[Tensor, "n k"], teacher_logits: Float[Tensor, "n k"], temperature: float
) -> Scalar:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch (Hinton et al. 2015); >= 0.

    No gradient reaches the teacher's logits, which may have been computed before. Raises UserError unless
    temperature > 0 and both shapes agree.
    """
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0 (the paper's is 20).")
    if student_logits.shape != teacher_logits.shape:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise UserError(f"student and teacher logits have shapes {shapes}; they must be the same [N, K].")
    student = F.log_softmax(_precise(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(_precise(teacher_logits.detach()) / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum((0, 1)) / len(student)
    return divergence * temperature**2


def sigmoid_loss(logits: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> Scalar:
    """Binary cross-entropy of a sigmoid for each class, as iCaRL trains (Rebuffi et al. 2017); >= 0.

    Targets are in [0, 1]. The mean over the batch of the sum over classes / `ICARL_OUTPUTS`: iCaRL's network has that
    many outputs from the beginning, and its learning rate of 2 is for their mean.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / (len(logits) * ICARL_OUTPUTS)


def _precise(logits: Tensor) -> Tensor:
    """Return float32 for half precisions; float32 and float64 as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
