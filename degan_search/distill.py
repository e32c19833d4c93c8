"""Distillation of a student from a source of images (Hinton et al. 2015; section 5.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from degan_search import runtime
from degan_search.capture import Accelerate
from degan_search.checkpoint import Parts
from degan_search.config import DistillConfig
from degan_search.fit import Progress, fit_steps, reports
from degan_search.losses import distillation_loss
from degan_search.networks.layers import draw_from
from degan_search.sources import Source


def distill_steps(
    student: nn.Module,
    source: Source,
    config: DistillConfig,
    seed: int,
    device: str,
    stage: str = "distill",
    parts: Parts | None = None,
    precision: runtime.Precision = "float32",
    accelerate: Accelerate = "none",
) -> Iterator[Progress | None]:
    """Train a student in place to give the teacher's outputs, yielding its progress after each epoch, else None.

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

    draw_from(student, parts.stream("dropout", runtime.generator(seed, stage, "dropout", device=device)))

    def loss(images: Tensor, teacher_logits: Tensor) -> Tensor:
        with runtime.arithmetic(precision, device):
            return distillation_loss(student(images), teacher_logits, config.temperature)

    yield from fit_steps(
        student,
        loss,
        lambda: source.score(student, fresh),
        config,
        source.steps_per_epoch,
        stage,
        parts.add("fit", Parts()),
        lambda: next(batches),
        accelerate,
    )
    draw_from(student, None)


distill = reports(distill_steps)
