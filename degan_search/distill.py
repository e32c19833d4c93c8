"""Distillation of a student from a source of images (Hinton et al. 2015; section 5.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from degan_search import runtime
from degan_search.capture import Accelerate, compiled
from degan_search.checkpoint import Parts
from degan_search.config import DistillConfig
from degan_search.fit import Progress, fit
from degan_search.losses import distillation_loss
from degan_search.networks.layers import Dropout
from degan_search.sources import Source


def distill(
    student: nn.Module,
    source: Source,
    config: DistillConfig,
    seed: int,
    device: str,
    stage: str = "distill",
    parts: Parts | None = None,
    precision: runtime.Precision = "float32",
    accelerate: Accelerate = "none",
) -> Iterator[Progress]:
    """Train a student in place to give the teacher's outputs, yielding its progress after each epoch.

    The loss is T^2 KL(teacher || student) at temperature T; the weights kept are those of the best
    agreement with the teacher on images not trained on. The student ends in eval mode. What it needs to go on
    later is added to `parts`. The student's passes are computed in `precision`; a step is run
    as `accelerate` says.

    Raises:
        DivergedError: the loss is not finite.
    """
    parts = parts or Parts()
    rng = parts.stream("rng", runtime.generator(seed, stage, "images", device=device))
    fresh = parts.stream("score", runtime.generator(seed, stage, "score", device=device))
    batches = source.batches(rng, parts.add("batches", Parts()))

    learner = compiled(student, accelerate)
    noisy = [layer for layer in student.modules() if isinstance(layer, Dropout) and accelerate == "graphs"]

    def draw() -> tuple[Tensor, ...]:
        images, teacher_logits = next(batches)
        return images, teacher_logits, *(layer.draw(len(images), device) for layer in noisy)

    def loss(images: Tensor, teacher_logits: Tensor, *noise: Tensor) -> Tensor:
        for layer, own in zip(noisy, noise, strict=True):
            layer.noise = own
        with runtime.arithmetic(precision, device):
            return distillation_loss(learner(images), teacher_logits, config.temperature)

    with runtime.seeded(seed, stage, "dropout", device=device) as dropout:
        parts.stream("dropout", dropout)
        yield from fit(
            student,
            loss,
            lambda: source.score(student, fresh),
            config,
            source.steps_per_epoch,
            stage,
            parts.add("fit", Parts()),
            draw,
            accelerate,
        )
    for layer in noisy:
        layer.noise = None
