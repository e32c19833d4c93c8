"""Distillation of a student from a source of images (Hinton et al. 2015; section 5.1 of the paper)."""

from __future__ import annotations

from torch import Tensor, nn

from degan_search.settings.trial import DistillConfig
from degan_search.stages.image_sources import Source
from degan_search.training.context import Context
from degan_search.training.fitted_stage import DROPOUT, FittedStage
from degan_search.training.loop import Fitting
from degan_search.training.losses import distillation_loss


class Distillation(FittedStage):
    """The training of a student to give the teacher's outputs.

    The loss is T^2 KL(teacher || student) at temperature T, the student's outputs computed in the context's precision:
    the sum over a batch divided by the size of a whole one, so that the images of a short batch count for no more.
    The student ends in eval mode, with the weights that agreed best with the teacher on images not trained on.
    """

    def __init__(
        self, student: nn.Module, source: Source, config: DistillConfig, context: Context, name: str = "distill"
    ) -> None:
        """Begin with an untrained student on the device; `name` is the stage's, and of its random streams."""
        images_rng, score_rng = context.generator(name, "images"), context.generator(name, "score")
        batches = source.batches(images_rng)

        def loss(images: Tensor, teacher_logits: Tensor) -> Tensor:
            with context.arithmetic():
                mean = distillation_loss(student(images), teacher_logits, config.temperature)
            return mean * (len(images) / source.batch_size)

        fitting = Fitting(
            student,
            loss,
            lambda: source.score(student, score_rng),
            config,
            source.steps_per_epoch,
            name,
            batches.__next__,
            context.accelerate,
        )
        streams = {"images_rng": images_rng, "score_rng": score_rng, DROPOUT: context.generator(name, "dropout")}
        super().__init__(student, fitting, batches, streams)
        self.student = student
